"""A quota that two real hosts share over a real engine: turned on, password rotated, engine lost, turned off."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from tests.ansible.real_fleet import Fleet

pytestmark = pytest.mark.hosts

KEY = "hs_test_shared_quota_0001"
PORT = 6390
FIRST, SECOND = "the-first-password-of-the-engine", "the-second-password-of-the-engine"
ENGINE = shutil.which("valkey-server") or shutil.which("redis-server")
PASSWORD_FILE = "/etc/ai-client/coordination"
VARIABLES = {
    "ai_rpm": 100,
    "ai_coordination_endpoint": f"redis://10.88.0.1:{PORT}",
    "ai_coordination_user": "fleet",
    "ai_coordination_account": "test",
}


class Engine:
    """An engine on the hosts' bridge, with the user of the fleet."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet = fleet
        self.socket = folder / "engine.sock"
        self.argv = [
            str(ENGINE), "--bind", "10.88.0.1", "--port", str(PORT), "--unixsocket", str(self.socket),
            "--protected-mode", "no", "--save", "", "--dir", str(folder),
            "--user", "fleet", "on", f">{FIRST}", "~*", "&*", "+@all",
        ]  # fmt: skip

    def start(self) -> None:
        ready = {"address": "10.88.0.1", "port": PORT}
        self.fleet.control.ask("service", "up", order={"name": "engine", "argv": self.argv, "ready": ready})

    def stop(self) -> None:
        self.fleet.control.ask("service", "down", order={"name": "engine"})

    def ask(self, *words: str) -> str:
        done = subprocess.run(
            ["redis-cli", "-s", str(self.socket), *words], capture_output=True, text=True, check=True
        )
        return done.stdout


@pytest.fixture
def engine(fleet: Fleet, tmp_path: Path) -> Iterator[Engine]:
    started = Engine(fleet, tmp_path)
    started.start()
    try:
        yield started
    finally:
        started.stop()
        assert fleet.play("decommission", key=KEY).status == 0


def deploy(fleet: Fleet, password: str, **more: Any) -> dict[str, dict[str, Any]]:
    """One run of the playbook: what each host answered."""
    played = fleet.play(
        "deploy", key=KEY, variables={**VARIABLES, "ai_coordination_password": password, **more}
    )
    assert played.status == 0, played.output
    assert not password or password not in played.output
    return played.results


def coordination(fleet: Fleet, host: str) -> dict[str, Any]:
    """What a host's status has of it."""
    text = fleet.on(host, "curl -s --unix-socket /run/ai-client/gateway.sock http://localhost/status.json")
    return dict(json.loads(text)["coordination"] or {})


def until(
    fleet: Fleet, what: str, holds: Callable[[dict[str, Any]], bool], *, deadline_s: float = 60.0
) -> None:
    """Waits until it holds on both hosts."""
    ends_s = monotonic() + deadline_s
    while not all(holds(told := coordination(fleet, host)) for host in fleet.hosts):
        assert monotonic() < ends_s, f"{what}: {told}"
        sleep(1)


def test_two_hosts_share_their_quota_and_take_it_back(fleet: Fleet, engine: Engine) -> None:
    """Each brings its share; a rotated password touches one file; a lost engine is told; each has its own again."""
    deploy(fleet, FIRST)
    until(fleet, "both in the books", lambda told: (told["mode"], told["hosts"]) == ("leased", 2))
    assert {coordination(fleet, host)["fleet_rpm"] for host in fleet.hosts} == {200}
    assert fleet.on("h1", f"stat -c '%a %U %G' {PASSWORD_FILE}") == "640 root ai-client"
    assert deploy(fleet, FIRST)["h1"]["changed"] is False
    spent = fleet.on("h1", "sudo /opt/ai-client/bin/ai-client usage --fleet").splitlines()
    assert [line.split()[0] for line in spent] == ["host", *sorted(fleet.hosts), "total"]
    table = fleet.on("h1", "sudo /opt/ai-client/bin/ai-client fleet")
    assert all(host in table for host in fleet.hosts), table
    living = fleet.ssh("h1", "sudo /opt/ai-client/bin/ai-client fleet --forget h2")
    assert living.returncode != 0
    assert b"may still use its share; stop its service" in living.stderr

    pids = {host: fleet.on(host, "systemctl show -p MainPID --value ai-client") for host in fleet.hosts}
    engine.ask("ACL", "SETUSER", "fleet", f">{SECOND}")
    rotated = deploy(fleet, SECOND)
    assert rotated["h1"]["changed_paths"] == [PASSWORD_FILE]
    engine.ask("ACL", "SETUSER", "fleet", f"<{FIRST}")
    engine.ask("CLIENT", "KILL", "USER", "fleet")
    until(fleet, "both let in by the new password", lambda told: told["trouble"] is None)
    assert pids == {
        host: fleet.on(host, "systemctl show -p MainPID --value ai-client") for host in fleet.hosts
    }

    engine.stop()
    until(fleet, "the engine's loss is told", lambda told: "can't be reached" in str(told["trouble"]))
    health = fleet.ssh("h1", "/opt/ai-client/bin/ai-client --health-check --json")
    assert "can't be reached" in health.stdout.decode()

    deploy(fleet, "", ai_coordination_endpoint="", ai_coordination_user="")
    assert coordination(fleet, "h1") == {}
    assert fleet.on("h1", f"test -e {PASSWORD_FILE} && echo there || echo gone") == "gone"


def test_a_batch_goes_in_on_one_host_and_comes_out_on_the_other(fleet: Fleet, engine: Engine) -> None:
    """Workers are the services' own; they take a rotated password without a restart."""
    deploy(fleet, FIRST, ai_batch_mode=True)
    ai_client = "sudo /opt/ai-client/bin/ai-client batch"
    body = '{"model": "gpt-4.1", "max_tokens": 5, "messages": [{"role": "user", "content": "line %d"}]}'
    line = '{"custom_id": "%d", "url": "/v1/chat/completions", "body": ' + body + "}"
    for name in ("first", "second"):
        fleet.on("h1", f"for n in $(seq 40); do printf '{line}\\n' $n $n; done >/tmp/{name}.jsonl")
        told = json.loads(fleet.on("h1", f"{ai_client} submit /tmp/{name}.jsonl --json"))
        assert told == {"name": name, "lines": 40, "cancelled": False, "fetched": False}
        fetched = json.loads(fleet.on("h2", f"{ai_client} fetch {name} -o /tmp/{name}.answers --wait --json"))
        assert (fetched["complete"], fetched["answered"], fetched["failed"]) == (True, 40, 0)
        answers = [json.loads(each) for each in fleet.on("h2", f"cat /tmp/{name}.answers").splitlines()]
        assert {each["custom_id"] for each in answers} == {str(number) for number in range(1, 41)}
        if name == "first":
            engine.ask("ACL", "SETUSER", "fleet", f">{SECOND}")
            deploy(fleet, SECOND, ai_batch_mode=True)
            engine.ask("ACL", "SETUSER", "fleet", f"<{FIRST}")
            engine.ask("CLIENT", "KILL", "USER", "fleet")
