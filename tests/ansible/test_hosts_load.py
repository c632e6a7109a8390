"""Real hosts, Debian 12 and 13, under a steady load: upgrades with a stream running through them, and a crash."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.held_provider import LATENCY_S
from tests.ansible.host_load import CALLERS
from tests.ansible.real_fleet import HOSTS, Fleet, Played, repacked

pytestmark = [pytest.mark.hosts, pytest.mark.slow]

KEY = "hs_test_hosts_under_load"
LOAD = Path(__file__).with_name("host_load.py")
FOLDER = "/tmp/load"
STREAM_PIECES = 8000
# How many seconds the stream lasts at least, up to 480: it spans the upgrades in any case.
STREAM_S = float(os.environ.get("UPGRADE_STREAM_S", "0"))
LONGEST_WAIT_S = 1.0
RESTART_S = 2.0
# Between reading the clock and the kill, on a busy machine.
KILL_S = 0.5
DEADLINE_S = 60.0
# Of the role: a provider that takes its time, and no limit in the way of the load.
VARIABLES = {"ai_base_url": "http://10.88.0.1:8001/v1", "ai_rpm": 100_000}


@dataclass(frozen=True)
class Report:
    """What a host's callers saw: `answers` are began, ended, status or error."""

    answers: list[tuple[float, float, str]]
    stall_s: float
    starved: list[tuple[float, float]]
    stream: dict[str, Any]

    def starved_s(self) -> float:
        """For how much of the longest wait somebody on this machine waited for a processor."""
        began_s, ended_s, _ = max(self.answers, key=lambda answer: answer[1] - answer[0])
        before = [total_s for at_s, total_s in self.starved if at_s <= began_s]
        until_then = [total_s for at_s, total_s in self.starved if at_s <= ended_s]
        return until_then[-1] - (before or until_then)[-1] if until_then else 0.0

    def failed(self) -> list[tuple[float, float, str]]:
        """All that is no answer."""
        return [answer for answer in self.answers if answer[2] != "200"]

    def told(self) -> str:
        """In a line."""
        seen = self.stream
        stream = f"stream of {seen['ended_s'] - seen['began_s']:.1f} s, " if seen else ""
        waits = f"longest wait {self.longest_wait_s():.3f} s, the machine late by {self.stall_s:.3f} s"
        waits += f", of it starved {self.starved_s():.3f} s"
        return f"{len(self.answers)} answers, {len(self.failed())} failed, {stream}{waits}"

    def longest_wait_s(self) -> float:
        """Beyond the provider's time, and beyond what this machine itself was late."""
        return max(ended_s - began_s for began_s, ended_s, _ in self.answers) - LATENCY_S - self.stall_s


def until(condition: Callable[[], bool], *, what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait for a condition to hold; fail naming it. Each look at a host takes its own time."""
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, f"waited {deadline_s} s for {what}"


@dataclass
class Loaded:
    """Hosts under load. `ends` is the file that lets the provider's streams end."""

    fleet: Fleet
    ends: Path

    def start(self, *, stream_pieces: int = 0) -> None:
        """Start the callers on every host, with a stream where it has a length, and wait until they are answered."""
        for host in HOSTS:
            self.fleet.on(host, f"rm -rf {FOLDER}; mkdir {FOLDER}")
            written = self.fleet.ssh(host, f"sudo tee {FOLDER}/load.py", stdin=LOAD.read_bytes())
            assert written.returncode == 0, written.stderr
            program = f"python3 {FOLDER}/load.py /run/ai-client/gateway.sock {FOLDER} {stream_pieces}"
            self.fleet.on(host, f"nohup {program} >{FOLDER}/log 2>&1 & echo $! >{FOLDER}/pid")
        for host in HOSTS:
            if stream_pieces:
                until(lambda host=host: self.has(host, "streaming"), what="the stream's first piece")
        self.go_on()

    def has(self, host: str, name: str) -> bool:
        """Whether the load's folder has a file."""
        return self.fleet.ssh(host, f"test -e {FOLDER}/{name}").returncode == 0

    def count(self, host: str) -> int:
        """Answers so far."""
        return int(self.fleet.on(host, f"cat {FOLDER}/answers || echo 0") or 0)

    def go_on(self, answers: int = 40) -> None:
        """Wait until each host's callers have had so many more answers."""
        for host in HOSTS:
            wanted = self.count(host) + answers
            until(lambda host=host, wanted=wanted: self.count(host) >= wanted, what="more answers")

    def stop(self) -> None:
        """End the callers; the streams go on."""
        for host in HOSTS:
            self.fleet.on(host, f"touch {FOLDER}/stop")
            until(lambda host=host: self.has(host, "callers-ended"), what="the callers' end")

    def reports(self) -> dict[str, Report]:
        """What callers and streams saw, when they have all ended."""
        reports = {}
        for host in HOSTS:
            until(lambda host=host: self.has(host, "report.json"), what="the load's end")
            seen = json.loads(self.fleet.on(host, f"cat {FOLDER}/report.json"))
            answers = [tuple(answer) for answer in seen["answers"]]
            reports[host] = Report(answers, seen["stall_s"], seen["starved"], seen["stream"])
        return reports

    def main_pid(self, host: str) -> int:
        """The service's process, as systemd has it."""
        return int(self.fleet.on(host, "systemctl show -P MainPID ai-client"))

    def is_alive(self, host: str, pid: int) -> bool:
        """Whether a process of the host is there."""
        return self.fleet.ssh(host, f"test -d /proc/{pid}").returncode == 0


@pytest.fixture
def loaded(fleet: Fleet) -> Iterator[Loaded]:
    """Hosts with a provider of their own; no caller and nothing of ours is left."""
    ends = fleet.folder / "streams-end"
    serve = [".venv/bin/python", "-m", "tests.ansible.held_provider", "10.88.0.1", "8001", str(ends)]
    ready = {"address": "10.88.0.1", "port": 8001}
    fleet.control.ask("service", "up", order={"name": "held", "argv": serve, "ready": ready})
    yield Loaded(fleet, ends)
    ends.unlink(missing_ok=True)
    for host in HOSTS:
        fleet.on(host, f"kill $(cat {FOLDER}/pid) 2>/dev/null || true; rm -rf {FOLDER}")
    assert fleet.play("decommission", key=KEY).status == 0
    fleet.control.ask("service", "down", order={"name": "held"})


def deploy(fleet: Fleet, artefact: Path) -> Played:
    """The playbook, which must succeed."""
    played = fleet.play("deploy", key=KEY, variables={**VARIABLES, "ai_artefacts": str(artefact)})
    assert played.status == 0, played.output
    return played


def usage(fleet: Fleet, host: str) -> dict[str, Any]:
    """What the ledger has booked in all."""
    booked: dict[str, Any] = json.loads(fleet.on(host, "/opt/ai-client/bin/ai-client usage --json"))["total"]
    return booked


def asked_before(fleet: Fleet, host: str) -> str:
    """Where the answer to one certain question comes from: `miss` or `hit`."""
    body = json.dumps(
        {"model": "gpt-4.1", "messages": [{"role": "user", "content": "kept"}], "max_tokens": 1}
    )
    to = "--unix-socket /run/ai-client/gateway.sock http://localhost/v1/chat/completions"
    return fleet.on(host, f"curl -s -o /dev/null -w '%header{{x-ai-cache}}' {to} -d '{body}'")


def test_a_killed_service_is_back_within_two_seconds_with_ledger_and_cache(loaded: Loaded) -> None:
    """Only requests under way at the kill are lost, and the ledger holds what they may have cost; whoever comes
    meanwhile waits, and is answered."""
    fleet = loaded.fleet
    deploy(fleet, fleet.artefact)
    for host in HOSTS:
        assert (asked_before(fleet, host), asked_before(fleet, host)) == ("miss", "hit")
    loaded.start()
    killed_s = {}
    for host in HOSTS:
        pid = loaded.main_pid(host)
        killed_s[host] = float(fleet.on(host, f"date +%s.%N; kill -9 {pid}"))
    loaded.go_on()
    loaded.stop()
    for host, report in loaded.reports().items():
        print(f"{host}: {report.told()}")
        lost = report.failed()
        assert len(lost) <= CALLERS
        assert all(
            began_s < killed_s[host] + KILL_S < ended_s + 2 * KILL_S for began_s, ended_s, _ in lost
        ), lost
        # A start is half a second of work, which takes as long as the machine lets it.
        assert report.longest_wait_s() - report.starved_s() < RESTART_S
        assert fleet.on(host, "systemctl show -P NRestarts ai-client") == "1"
        answered = len(report.answers) - len(lost) + 1
        booked = usage(fleet, host)
        assert booked["requests"] - booked["unknown_requests"] <= answered + len(lost)
        assert answered <= booked["requests"] <= answered + len(lost)
        assert booked["unknown_requests"] <= len(lost)
        assert asked_before(fleet, host) == "hit"


def test_two_upgrades_in_a_row_drop_nothing_and_hold_nobody_up(loaded: Loaded, tmp_path: Path) -> None:
    """Every request is answered within a second of its service time, and a stream that began before both upgrades
    ends whole after them, in the first of three processes; systemd calls the service active all the while. The stream
    survives a restart of the service, too, which asks all three to end."""
    fleet = loaded.fleet
    deploy(fleet, fleet.artefact)
    loaded.start(stream_pieces=STREAM_PIECES)
    began_s = time.time()
    pids = {host: [loaded.main_pid(host)] for host in HOSTS}
    for name in ("second", "third"):
        extra = {"main.py": f"# {name}\n"}
        played = deploy(fleet, repacked(fleet.artefact, tmp_path / name, version="1.0.0", appended=extra))
        for host in HOSTS:
            assert played.results[host]["actions"] == ["hand ai-client.service over to the release"]
            assert fleet.on(host, "systemctl is-active ai-client") == "active"
            pids[host].append(loaded.main_pid(host))
            assert loaded.is_alive(host, pids[host][0]), "the first process has ended before its stream"
        loaded.go_on()
    upgraded_s = time.time()
    until(lambda: time.time() > began_s + STREAM_S, what="the stream's length", deadline_s=STREAM_S + 1)
    loaded.stop()
    restart(loaded)
    loaded.ends.touch()
    for host, report in loaded.reports().items():
        print(f"{host}: {report.told()}")
        assert report.failed() == []
        assert report.longest_wait_s() - report.starved_s() < LONGEST_WAIT_S
        stream = report.stream
        assert (stream["status"], stream["is_whole"], stream["pieces"]) == (200, True, STREAM_PIECES + 1)
        assert stream["began_s"] < began_s < upgraded_s < stream["ended_s"]
        assert len(set(pids[host])) == 3
        check_old_ones_end(loaded, host, pids[host])


def restart(loaded: Loaded) -> None:
    """Begin a restart on every host; it is done when the streams are."""
    for host in HOSTS:
        assert loaded.fleet.on(host, "systemctl show -P NRestarts ai-client") == "0"
        pid = loaded.main_pid(host)
        loaded.fleet.on(host, "systemctl restart --no-block ai-client")
        until(lambda host=host, pid=pid: not loaded.is_alive(host, pid), what="the last process to drain")


def check_old_ones_end(loaded: Loaded, host: str, pids: list[int]) -> None:
    """All are gone, the service runs anew; systemd was told nothing by processes that had handed over, and each main
    process was one whose end it would have seen."""
    for pid in pids:
        until(lambda pid=pid: not loaded.is_alive(host, pid), what="the old processes to end")
    until(lambda: loaded.main_pid(host) not in (0, *pids), what="the service to start anew")
    journal = loaded.fleet.on(host, "journalctl --no-pager --output cat --unit ai-client")
    assert "reception only permitted" not in journal
    assert "not our child" not in journal
