import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.fleet.clones import Clone, clone
from tests.hosts_of_run import removed_at_the_end
from tests.infra.stacks import PROJECT, shipped

# Two runs on one machine take different names and links.
STACK = os.environ.get("FLEET_TESTS_STACK", "citest")
LINK = os.environ.get("FLEET_TESTS_LINK", "198.18.60.0/30")

API_CLIENTS = tuple(f"api-dev-{number:02}" for number in range(1, 6))
BATCH_WORKERS = tuple(f"batch-dev-{number:02}" for number in range(1, 4))
HOSTS = (*API_CLIENTS, *BATCH_WORKERS)
_DEBIAN_13 = ("api-dev-02", "batch-dev-02")


@dataclass
class Fleet:
    """A stack on real hosts, and the key that was put into it to look for leaks.

    Attributes:
        clone: the checkout that made the stack.
        key: its upstream key.
        keys: every upstream key that it has had.
        work: folder that everything of it lies in.
    """

    clone: Clone
    key: str
    work: Path
    keys: list[str] = field(default_factory=list)

    @property
    def local(self) -> Path:
        """What the machine keeps of the stack's hosts."""
        return Path("/var/lib/ai-client-fleet/local") / self.clone.stack

    def config(self) -> dict[str, object]:
        """The stack's configuration without its secrets, as `Clone.configure` takes it."""
        content = yaml.safe_load((self.clone.folder / f"Pulumi.{self.clone.stack}.yaml").read_text())
        items = content["config"].items()
        return {k.removeprefix("fleet:"): v for k, v in items if not (isinstance(v, dict) and "secure" in v)}

    def set_key(self, key: str) -> None:
        """Sets another upstream key in the configuration."""
        self.clone.pulumi("config", "set", "--secret", "apiKey", "--stack", self.clone.stack, stdin=key)
        self.key = key
        self.keys.append(key)

    def kill_host(self, host: str) -> None:
        """Ends a host as a power failure does: with its first process, all of its processes are gone at once."""
        pid = json.loads((self.local / "hosts" / host / "process.json").read_text())["pid"]
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for process in (*map(int, children), pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def own_processes(self, word: str, *, without: str = "\0") -> list[int]:
        """Processes of this checkout with a word among their arguments, and without another."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    arguments = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                    is_here = str(self.clone.folder) in f"{arguments} {(entry / 'cwd').readlink()}"
                    if is_here and word in arguments and without not in arguments:
                        found.append(int(entry.name))
        return found

    def root_of(self, host: str) -> Path:
        """Root folder of a host's file system."""
        return self.local / "hosts" / host / "root"


def hosts_tool(*words: str, order: dict[str, object]) -> dict[str, object]:
    """Asks the tool that makes local hosts."""
    argv = [sys.executable, "-m", "tools.hosts", *words]
    done = subprocess.run(
        argv, cwd=PROJECT, input=json.dumps(order), capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def dev_config() -> dict[str, object]:
    """The dev stack's configuration on a link of the tests' own: eight hosts, and quota for load on all of them."""
    config = shipped("dev")
    config["local"]["link"] = LINK
    quota = {"rpm": 120_000, "tpm": 120_000_000}
    config["account"] = quota
    config["local"]["simulator"] |= quota
    for group, names, network, share in (
        ("ai_api_clients", API_CLIENTS, 10, 0.6),
        ("ai_batch_workers", BATCH_WORKERS, 20, 0.4),
    ):
        hosts = {name: {"address": f"10.88.0.{network + n}"} for n, name in enumerate(names, start=1)}
        config["groups"][group] |= {"hosts": hosts, "share": share, "serial": 2}
        for name in set(names).intersection(_DEBIAN_13):
            hosts[name]["suite"] = "trixie"
    # How a change is watched has tests of its own.
    config["gate"] = {"seconds": 0}
    config["maxRemovals"] = len(HOSTS)
    return config


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A stack declared and not yet up; whatever tests made of it is ended with the session."""
    work = tmp_path_factory.mktemp("fleet")
    checkout = clone(work / "first", state=work / "state", stack=STACK)
    key = f"hs_test_canary_{secrets.token_hex(12)}"
    try:
        with removed_at_the_end(STACK):
            checkout.pulumi("stack", "init", STACK)
            checkout.configure(dev_config())
            fleet = Fleet(checkout, key, work)
            fleet.set_key(key)
            yield fleet
    finally:
        shutil.rmtree(work, ignore_errors=True)


@pytest.fixture
def running(fleet: Fleet) -> Fleet:
    """The stack, up. Whichever test comes first brings it up."""
    if not fleet.local.exists():
        fleet.clone.up()
    return fleet


# The stack is made by the first of these files and removed by the last.
_ORDER = ("test_life", "test_changes", "test_roll_out", "test_day_two", "test_end")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the one stack run in the order in which users live with it."""
    ranks = {name: rank for rank, name in enumerate(_ORDER, start=1)}
    items.sort(key=lambda item: ranks.get(Path(item.path).stem, 0))
