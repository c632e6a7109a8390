"""A fleet as its users drive it: the command, its answers, and what it must never leave behind."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.hosts_of_run import removed_at_the_end
from tools.hosts.places import DEFAULT_FOLDER, FOLDER_VARIABLE, FleetPlaces, fleet_places

ROOT = Path(__file__).resolve().parents[2]
CRASHER = "tests.tools.hosts_crasher"
# The same folder in every run, so that a run finds what one before it left that was killed.
FOLDER = DEFAULT_FOLDER.with_name("tests")
BRIDGE = "10.88.0.1/24"
VERB_TIMEOUT_S = 300


@dataclass(frozen=True)
class Control:
    """One fleet in a folder of its own; `link_octet` keeps its link apart from other fleets'."""

    folder: Path
    fleet: str
    link_octet: int

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, FOLDER_VARIABLE: str(self.folder)}

    @property
    def places(self) -> FleetPlaces:
        return fleet_places(self.fleet, self.environment)

    @property
    def control_address(self) -> str:
        return f"198.18.{self.link_octet}.1"

    @property
    def jump_address(self) -> str:
        return f"198.18.{self.link_octet}.2"

    @property
    def network_order(self) -> dict[str, object]:
        link = {"control": f"{self.control_address}/30", "jump": f"{self.jump_address}/30"}
        return {"bridge": BRIDGE, "link": link}

    def jump_order(self, **changed: object) -> dict[str, object]:
        order = {
            "name": "jump",
            "address": "10.88.0.10/24",
            "suite": "bookworm",
            "link": f"{self.jump_address}/30",
        }
        return {**order, **changed}

    def run(
        self, *verb: str, order: Mapping[str, object] | None = None, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a verb to its end, whatever that is."""
        return self.run_program([sys.executable, "-m", "tools.hosts", *verb], order or {}, text=text)

    def is_killed(self, at: int, *verb: str, order: Mapping[str, object] | None = None) -> bool:
        """Runs a verb and kills it before its step number `at`; false where it ended well before that.

        How many steps a verb takes differs from run to run, since it also counts what it waits for.
        """
        done = self.run_program([sys.executable, "-m", CRASHER, str(at), *verb], order or {})
        assert done.returncode in (-9, 0), done.stderr
        return done.returncode == -9

    def run_program(
        self, argv: Sequence[str], order: Mapping[str, object], text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        stdin = json.dumps({"fleet": self.fleet, **order}) if text is None else text
        return subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=VERB_TIMEOUT_S,
            check=False,
            cwd=ROOT,
            env=self.environment,
        )

    def ask(self, *verb: str, order: Mapping[str, object] | None = None) -> dict[str, object]:
        """Runs a verb that must succeed; returns its answer."""
        done = self.run(*verb, order=order)
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def refusal(self, *verb: str, order: Mapping[str, object] | None = None, text: str | None = None) -> str:
        """Runs a verb that must fail in one line; returns that line."""
        done = self.run(*verb, order=order, text=text)
        assert (done.returncode, done.stdout) == (1, ""), done
        line = done.stderr.splitlines()[-1]
        assert line.startswith("hosts: "), done.stderr
        assert line.count("; ") >= 1, line
        assert "Traceback" not in done.stderr
        return line

    def pid(self, host: str) -> int:
        """The host's container process, as recorded."""
        return self.recorded_pid(self.places.host(host).process)

    @staticmethod
    def recorded_pid(record: Path) -> int:
        """The process that a record names."""
        return int(json.loads(record.read_text())["pid"])


@contextmanager
def own_fleet(fleet: str, link_octet: int) -> Iterator[Control]:
    """A fleet of these tests' own: free of what a killed run left, and gone at the end, also after a failure."""
    folder = FOLDER / f"{fleet}-{link_octet}"
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".tests-lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AssertionError(
                f"another run of the tests has the hosts of {folder}; wait for its end"
            ) from None
        control = Control(folder, fleet, link_octet)
        with removed_at_the_end(fleet, folder):
            yield control
        assert leftovers(control) == []


def leftovers(control: Control) -> list[str]:
    """Everything of a fleet that is still on this machine, found without the tool's own means."""
    scope = control.places.netns
    found = [f"file {path}" for path in control.folder.rglob("*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                continue  # it has ended, only its parent has not asked yet
            text = (process / "cgroup").read_text() + (process / "cmdline").read_text()
            if scope in text or str(control.folder) in text.replace("\0", " "):
                found.append(f"process {process.name} {(process / 'cmdline').read_bytes()[:80]!r}")
        except (FileNotFoundError, ProcessLookupError):
            continue
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line}" for line in mounts if str(control.folder) in line or scope in line]
    found += [f"namespace {path}" for path in Path("/run/netns").glob(f"{scope}*")]
    found += [f"cgroup {path}" for path in Path("/sys/fs/cgroup").rglob(f"{scope}*") if path.is_dir()]
    found += [f"trace {path}" for path in Path("/run/systemd/nspawn").rglob(f"{scope}*")]
    interface = Path("/sys/class/net", control.places.link_interface)
    return found + ([f"interface {interface}"] if interface.exists() else [])
