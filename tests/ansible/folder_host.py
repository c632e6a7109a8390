"""A host that is a folder: real files, and a systemd that is one JSON file, so that it outlives a killed process."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import signal
import sys
import tarfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from applier.on_host import places
from applier.on_host.apply import Run
from applier.on_host.errors import ApplyError
from applier.on_host.host import RESTART_NEEDED, Account, Host, Outcome, UnitState
from applier.on_host.items import Ids
from applier.on_host.program import respond
from applier.on_host.request import PARTS, PROTOCOL, parse_request
from applier.on_host.response import Response
from applier.on_host.tree import Tree

UID, GID = 4711, 4712
TAG = "cp311-x86_64"
# When a release of the tests has shown what it is like.
SOON_S = 3.0
KEY, KEY_2 = "hs_test_first_key_00", "hs_test_second_key_0"
FOLDERS = (
    "etc/systemd/system",
    "opt",
    "usr/local/share/ca-certificates",
    "var/cache",
    "var/log",
    "var/lib",
    "run",
)


class FolderHost(Host):
    """Acts as systemd would; `kill_at` ends the process before its n-th change, or before one by its name."""

    def __init__(self, root: Path, *, kill_at: int | str | None = None) -> None:
        self.root = root
        self.points: list[str] = []
        self.kill_at = kill_at
        self.time_s = 0.0

    def reached(self, point: str) -> None:
        self.points.append(point)
        if self.kill_at in (len(self.points), point):
            os.kill(os.getpid(), signal.SIGKILL)

    def now(self) -> str:
        return "2026-01-31T12:00:00Z"

    def clock_s(self) -> float:
        return self.time_s

    def wait(self, seconds: float) -> None:
        self.time_s += seconds

    def machine(self) -> str:
        return TAG.partition("-")[2]

    def tag(self) -> str:
        return TAG

    def systemd(self) -> int:
        return 252

    def has_selinux(self) -> bool:
        return False

    def has_program(self, name: str) -> bool:
        return True

    def glibc(self) -> str:
        return "2.36"

    def python(self) -> str:
        return sys.executable

    def ids(self) -> Ids:
        known = self.state["identity"]
        return Ids(UID if known else None, GID if known else None)

    def account(self) -> Account | None:
        if not self.state["identity"]:
            return None
        person = self.state.get("person")
        return Account(*(person or ("/nonexistent", "/usr/sbin/nologin")))

    def add_person(self) -> None:
        """Somebody's account of our user's name, with a home and a shell."""
        self._update(identity=True, person=("/home/ai-client", "/bin/bash"))

    def add_identity(self, ids: Ids) -> None:
        self._update(identity=True)

    def remove_identity(self, ids: Ids, *, user: bool = True, group: bool = True) -> None:
        self._update(identity=not (user and group))

    @property
    def state(self) -> dict[str, Any]:
        """What systemd and the user database know."""
        path = self.root / "run/systemd.json"
        empty: dict[str, Any] = {"identity": False, "running": {}, "loaded": {}, "commands": [], "faults": {}}
        return json.loads(path.read_text()) if path.exists() else empty

    def _update(self, **changes: Any) -> None:
        (self.root / "run/systemd.json").write_text(json.dumps({**self.state, **changes}))

    def serve(self, **counts: float) -> None:
        """What the service has counted, and how it answers, from now on; `sent_rpm` in the last minute."""
        self._update(counts=counts)

    def metrics(self, address: str) -> str:
        counts = self.state.get("counts")
        if counts is None:
            raise ApplyError(address, "the service does not answer", "see its log")
        counts = {"requests": 0, "faults": 0, "throttled": 0, **counts, **self.later}
        return (
            f'ai_client_requests_total{{tenant="a",model="m",code="200"}} {counts["requests"]}\n'
            f'ai_client_retries_total{{error="RateLimitError"}} {counts["throttled"]}\n'
            f"ai_client_gateway_faults_total {counts['faults']}\n"
        )

    @property
    def later(self) -> dict[str, float]:
        """What the release that runs has counted when some time has passed."""
        path = self.root / "opt/ai-client/current/counts.json"
        return dict(json.loads(path.read_text())) if path.exists() and self.time_s >= SOON_S else {}

    def sent_rpm(self, socket: str) -> int | None:
        counts = {**(self.state.get("counts") or {}), **self.later}
        return int(counts["sent_rpm"]) if "sent_rpm" in counts else None

    def question(self, socket: str) -> tuple[int, bytes]:
        if (self.root / "opt/ai-client/current/breaks").exists():
            return 500, b""
        return 504, b'{"error": {"code": "not_cached"}}'

    def report_with(self, release: str, *, config_path: str, key: str) -> dict[str, Any]:
        config = (self.root / config_path.lstrip("/")).read_text()
        said = self.state.get("provider", {}).get(key, "")
        upstream = "no route" if "unroutable" in config else said or self.state["faults"].get("upstream", "")
        self._update(tried=[*self.state.get("tried", []), [release, config, key]])
        return {"checks": {"upstream": {"ok": not upstream, "detail": upstream or "answers"}}}

    def answer_keys(self, **details: str) -> None:
        """What the provider says to a key from now on; nothing to one that it takes."""
        self._update(provider=details)

    def main_process(self) -> tuple[int, int] | None:
        return (self.main_pid(), -1) if places.SERVICE in self.state["running"] else None

    def main_pid(self) -> int:
        running = self.state["running"].get(places.SERVICE)
        return int(running["release"].rpartition("/")[2][:6], 16) if running else 0

    def end_if_replaced(self, process: tuple[int, int]) -> None:
        self._update(ended=[*self.state.get("ended", []), process[0]])

    def fail(self, **faults: str) -> None:
        """Makes health checks fail from now on; a detail a check."""
        self._update(faults=faults)

    def stop(self, unit: str) -> None:
        """As somebody would by hand."""
        self._update(running={name: seen for name, seen in self.state["running"].items() if name != unit})

    def units(self, names: tuple[str, ...]) -> dict[str, UnitState]:
        state = self.state
        return {
            name: UnitState(
                "masked" if self._is_masked(name) else "loaded" if name in state["loaded"] else "not-found",
                "active" if name in state["running"] else "inactive",
                name in state["loaded"] and state["loaded"][name] != self._unit_text(name),
            )
            for name in names
        }

    def _is_masked(self, name: str) -> bool:
        path = self.root / "etc/systemd/system" / name
        return path.is_symlink() and str(path.readlink()) == "/dev/null"

    def _unit_text(self, name: str) -> str:
        path = self.root / "etc/systemd/system" / name
        return path.read_text() if path.is_file() else ""

    def systemctl(self, *words: str) -> Outcome:
        verb, units = words[0], [word for word in words[1:] if not word.startswith("-")]
        state = self.state
        self._update(commands=[*state["commands"], " ".join(words)])
        if verb == "daemon-reload":
            folder = self.root / "etc/systemd/system"
            self._update(loaded={path.name: path.read_text() for path in folder.iterdir() if path.is_file()})
            return Outcome(0, "")
        running = dict(state["running"])
        if (
            verb in ("start", "restart")
            and places.SERVICE in running
            and any(unit.endswith(".socket") and (verb == "restart" or unit not in running) for unit in units)
        ):
            return Outcome(1, "Socket service ai-client.service already active, refusing.")
        for unit in units:
            if verb in ("stop", "restart"):
                running.pop(unit, None)
        for unit in units:
            if verb in ("start", "restart") and unit not in running:
                if unit not in state["loaded"]:
                    return Outcome(5, f"Unit {unit} not found.")
                if unit == places.SERVICE and (self.root / "opt/ai-client/current/refuses").exists():
                    self._update(running=running)
                    return Outcome(1, f"Job for {unit} failed.")
                running[unit] = self.service_sees()
        self._update(running=running)
        return Outcome(0, "")

    def service_sees(self) -> dict[str, str]:
        """What a process that starts or reloads now works with."""
        home = self.root / "etc/ai-client"
        return {
            "release": str((self.root / "opt/ai-client/current").readlink()),
            "config": (home / "ai-client.conf").read_text(),
            "key": (home / "key").read_text(),
        }

    def unit_log(self, unit: str) -> str:
        return "the log's last line"

    def refresh_trust(self, program: tuple[str, ...]) -> Outcome:
        self._update(commands=[*self.state["commands"], "update-ca-certificates"])
        return Outcome(0, "")

    def reload_client(self, socket: str, *, to_release: bool) -> Outcome:
        state = self.state
        seen = self.service_sees()
        before = state["running"][places.SERVICE]
        self._update(commands=[*state["commands"], "reload"])
        if "refuse-reload" in seen["config"]:
            return Outcome(1, "not reloaded: line 1 is wrong")
        if (self.root / "opt/ai-client" / before["release"] / "deaf").exists():
            return Outcome(1, "the service does not answer")
        if seen["release"] != before["release"]:
            if (self.root / "opt/ai-client/current/refuses").exists():
                return Outcome(1, "the new release does not start")
            if (self.root / "opt/ai-client" / before["release"] / "hands-nothing-over").exists():
                return Outcome(RESTART_NEEDED, "")
        self._update(running={**state["running"], places.SERVICE: seen})
        return Outcome(0, "")

    def health(self, socket: str, *, timeout_s: float) -> dict[str, Any]:
        faults = dict(self.state["faults"])
        bad = self.root / "opt/ai-client/current/unhealthy"
        if bad.exists():
            faults["config"] = bad.read_text()
        if (self.root / "opt/ai-client/current/unreachable").exists():
            faults["upstream"] = "no route"
        if places.SERVICE not in self.state["running"]:
            faults["service"] = "not running"
        names = ("config", "key", "tls", "upstream", "disk", "service")
        checks = {name: {"ok": name not in faults, "detail": faults.get(name, "fine")} for name in names}
        return {"ok": not faults, "checks": checks}


def artefact(**files: str) -> bytes:
    """A packed tree with a main.py and the given files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, text in {"main.py": "print('ai-client')\n", "lib/mod.py": "X = 1\n", **files}.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
    return gzip.compress(buffer.getvalue(), mtime=0)


@dataclass(frozen=True)
class Wanted:
    """The declared state, in what the tests vary."""

    config: str = "[api]\ntimeout = 30\n"
    key: str = KEY
    key_next: str = ""
    packed: bytes = field(default_factory=artefact)
    parts: tuple[str, ...] = PARTS
    mode: str = "apply"
    check: bool = False
    claim: str = "fleet/test/host-01"
    owner: str = "fleet/test"
    run: str = "run-1"
    tcp: bool = True
    ca_bundle: str = ""
    cache_dir: str = "/var/cache/ai-client"
    unit_note: str = ""
    collect: dict[str, Any] = field(default_factory=dict)
    gate_s: float = 10.0
    tries_keys: bool = True
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.packed).hexdigest()

    def manner(self) -> bytes:
        """How this run goes about it."""
        gate = {"seconds": self.gate_s, "error_share": 0.02, "throttled_share": 0.1, "overhead_s": 0.5}
        manner = {"check": self.check, "run": self.run, "gate": {**gate, "metrics": "127.0.0.1:9090"}}
        tries = dict.fromkeys(("tries_keys", "tries_upstream_keys"), self.tries_keys)
        return json.dumps({**manner, **tries}).encode()

    def encode(self) -> bytes:
        """The desired state as the controller sends it."""
        units = {"ai-client.socket": "[Socket]\n", "ai-client.service": f"[Service]\n{self.unit_note}"}
        if self.tcp:
            units = {"ai-client-tcp.socket": "[Socket]\n", **units}
        return json.dumps(
            {
                "protocol": PROTOCOL,
                "mode": self.mode,
                "parts": list(self.parts),
                "claim": {"name": self.claim, "owner": self.owner},
                "directories": {
                    "config": "/etc/ai-client",
                    "cache": self.cache_dir,
                    "log": "/var/log/ai-client",
                },
                "version": "1.0.0",
                "trees": {TAG: {"digest": self.digest, "glibc_min": "2.17"}},
                "config": self.config,
                "units": units,
                "ca_bundle": self.ca_bundle,
                "cert_path": "",
                "socket": "/run/ai-client/gateway.sock",
                "spool_dir": "",
                "key": self.key,
                "key_next": self.key_next,
                "health_deadline_s": 2.0,
                "python": "auto",
                "keep_releases": 2,
                "collect": self.collect,
                **self.more,
            }
        ).encode()


@dataclass(frozen=True)
class Rig:
    """One host and the ways to ask it."""

    root: Path

    @property
    def host(self) -> FolderHost:
        return FolderHost(self.root)

    def path(self, absolute: str) -> Path:
        """Where an absolute path of the host lies."""
        return self.root / absolute.lstrip("/")

    def ask(self, wanted: Wanted, host: FolderHost | None = None) -> Response:
        """One run, with the artefact sent when the host asks for it. Errors come as failed answers, as on the wire."""
        host = host or self.host
        response = self._once(wanted, host, b"")
        return self._once(wanted, host, wanted.packed) if response.needs else response

    def _once(self, wanted: Wanted, host: FolderHost, packed: bytes) -> Response:
        try:
            return respond(
                Run(parse_request(wanted.encode(), wanted.manner()), Tree(str(self.root)), host, packed)
            )
        except ApplyError as error:
            return Response(failed=True, message=str(error))

    def ask_killed_at(self, wanted: Wanted, point: int | str) -> bool:
        """One run in a process of its own that ends before a change; whether it came that far."""
        child = os.fork()
        if child == 0:
            self.ask(wanted, FolderHost(self.root, kill_at=point))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        return os.WIFSIGNALED(status)

    def files(self) -> dict[str, tuple[Any, ...]]:
        """Every path of the host but systemd's own, with what can be seen of it."""
        found: dict[str, tuple[Any, ...]] = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if name == "run/systemd.json":
                continue
            status = path.lstat()
            content: Any = None
            if path.is_symlink():
                content = str(path.readlink())
            elif path.is_file():
                content = path.read_bytes()
            found[name] = (status.st_mode, status.st_uid, status.st_gid, content)
        return found

    def partial_files(self) -> list[str]:
        """Names of files of ours that are not in place."""
        return [name for name in self.files() if places.PARTIAL_PREFIX in name]


def new_rig(root: Path) -> Rig:
    """An empty host."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    return Rig(root)


def varied(wanted: Wanted, **changes: Any) -> Wanted:
    """The same with some changes."""
    return replace(wanted, **changes)
