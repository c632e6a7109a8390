"""Two real hosts that share a quota, callers on both, an upstream that counts, and what all of them say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from tests.ansible.coordination_faults import engines
from tests.ansible.coordination_faults.engines import Engines
from tests.ansible.real_fleet import Fleet
from tests.client.coordination.engine import programs

KEY = "hs_test_faults_of_quota_0001"
SHARE_RPM = 240
CALLERS = Path(__file__).with_name("callers.py")
_FOLDER = "/var/tmp/coordination-faults"
_UPSTREAM = ("10.88.0.1", 8002)
_ENDS_S = 60.0
_VARIABLES = {
    "ai_base_url": f"http://{_UPSTREAM[0]}:{_UPSTREAM[1]}/v1",
    "ai_rpm": SHARE_RPM,
    "ai_coordination_endpoint": engines.ENDPOINT,
    "ai_coordination_user": engines.USER,
    "ai_coordination_password": engines.PASSWORD,
    "ai_coordination_account": "faults",
}

#: What a host says, once a second: `status`, `health` and `metrics`.
Said = Mapping[str, Any]


@dataclass(frozen=True)
class Rig:
    """All that a fault is played on."""

    fleet: Fleet
    engines: Engines
    folder: Path

    @property
    def hosts(self) -> Sequence[str]:
        return list(self.fleet.hosts)

    @property
    def quota_rpm(self) -> int:
        """R: what all hosts may send in a minute."""
        return SHARE_RPM * len(self.hosts)

    @property
    def arrivals_path(self) -> Path:
        return self.folder / "arrivals"

    def place(self, host: str, name: str) -> Path:
        """A file of the callers' folder on a host, as this machine sees it."""
        return Path(f"{self.fleet.control.places.host(host).root}{_FOLDER}", name)

    def ask_for(self, *parts: float) -> None:
        """How much callers on each host want from now on, as a part of the whole quota."""
        for host, part in zip(self.hosts, parts, strict=True):
            new = self.place(host, "rate.new")
            new.write_text(str(part * self.quota_rpm / 60))
            new.rename(self.place(host, "rate"))

    def said(self, host: str, *, from_s: float) -> list[Said]:
        """What a host has said since then, whole answers alone."""
        path = self.place(host, "seen.jsonl")
        text = path.read_text() if path.exists() else ""
        found = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [each for each in found if each["at_s"] >= from_s and each.get("status")]

    def until(
        self,
        what: str,
        holds: Callable[[Said], bool],
        *,
        hosts: Sequence[str],
        from_s: float,
        deadline_s: float = _ENDS_S,
    ) -> None:
        """Waits until each of the hosts has said it since then."""
        ends_s = monotonic() + deadline_s
        for host in hosts:
            while not any(holds(each) for each in self.said(host, from_s=from_s)):
                last = self.said(host, from_s=from_s)[-1:]
                assert monotonic() < ends_s, f"{host} never said, in {deadline_s:.0f} s: {what}; last {last}"
                sleep(0.5)

    def log(self, host: str, *, from_wall: str) -> list[dict[str, Any]]:
        """A host's log since then, as it is written in it."""
        folder = Path(f"{self.fleet.control.places.host(host).root}/var/log/ai-client")
        lines = [
            line
            for path in sorted(folder.glob("ai-client-*.jsonl"))
            for line in path.read_text().splitlines()
        ]
        return [entry for line in lines if (entry := json.loads(line))["at"] >= from_wall]

    def journal(self, host: str, *, from_wall: str) -> str:
        """What systemd has of the service since then."""
        since = from_wall.replace("T", " ").removesuffix("Z")
        return self.fleet.on(host, f"journalctl -u ai-client --utc -o cat --since '{since} UTC'")

    def health_check(self, host: str) -> dict[str, Any]:
        """What the command says of the shared quota."""
        done = self.fleet.ssh(host, "/opt/ai-client/bin/ai-client --health-check --json")
        checks: dict[str, Any] = json.loads(done.stdout)["checks"]["coordination"]
        return checks

    def _start_callers(self) -> None:
        for host in self.hosts:
            self.fleet.on(host, f"rm -rf {_FOLDER}; mkdir -p {_FOLDER}; echo 0 >{_FOLDER}/rate")
            written = self.fleet.ssh(host, f"sudo tee {_FOLDER}/callers.py", stdin=CALLERS.read_bytes())
            assert written.returncode == 0, written.stderr
            program = f"python3 {_FOLDER}/callers.py /run/ai-client/gateway.sock {_FOLDER}"
            self.fleet.on(host, f"nohup {program} >{_FOLDER}/log 2>&1 & echo $! >{_FOLDER}/pid")

    def stop_callers(self) -> None:
        """They begin nothing more."""
        for host in self.hosts:
            if self.place(host, "rate").exists():
                self.place(host, "stop").touch()

    def await_callers(self) -> None:
        """Each of them has its answer."""
        ends_s = monotonic() + _ENDS_S
        for host in self.hosts:
            while not self.place(host, "ended").exists():
                assert monotonic() < ends_s, f"callers on {host} are still waiting"
                sleep(0.2)


@contextmanager
def running(
    fleet: Fleet, folder: Path, *, prepare: Callable[[Rig], None] = lambda _rig: None
) -> Iterator[Rig]:
    """The hosts deployed, with callers that ask for nothing yet; all of it gone in the end. `prepare` is done to the
    engine before any host knows it."""
    rig = Rig(fleet, Engines(fleet, folder, tuple(programs())), folder)
    upstream = [".venv/bin/python", "-m", "tests.ansible.coordination_faults.upstream", *map(str, _UPSTREAM)]
    order = {
        "name": "counting",
        "argv": [*upstream, str(rig.arrivals_path)],
        "ready": {"address": _UPSTREAM[0], "port": _UPSTREAM[1]},
    }
    fleet.control.ask("service", "up", order=order)
    rig.engines.open()
    try:
        prepare(rig)
        played = fleet.play("deploy", key=KEY, variables=_VARIABLES)
        assert played.status == 0, played.output
        rig._start_callers()
        yield rig
        rig.stop_callers()
        rig.await_callers()
    finally:
        rig.stop_callers()
        rig.engines.close()
        fleet.control.ask("service", "down", order={"name": "counting"})
        assert fleet.play("decommission", key=KEY).status == 0
