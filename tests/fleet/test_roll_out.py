"""What stops a roll-out and what does not, on real hosts through the real engine."""

import contextlib
import json
import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.fleet.conftest import HOSTS, Fleet
from tests.fleet.leaks import in_text
from tests.fleet.load import under_load
from tests.fleet.test_changes import fingerprint, main_pids, requests_by_key
from tests.fleet.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.hosts]

CANARIES = ("api-dev-01", "batch-dev-01")
PER_SECOND = 20
GATE_S = 6
APP = "client/src/ai_client/gateway/app/app.py"
# What it answers itself is right, so that its health check passes; what the upstream answers becomes a 500.
BROKEN = """

async def respond(*_: object) -> None:
    raise KeyError("a fault that shows in answers alone")
"""
# A key is tried as root, which must leave nothing in the service's folders.
OF_ANOTHER_USER = "sudo find /var/cache/ai-client /var/lib/ai-client /var/log/ai-client ! -user ai-client"
RELEASES_THAT_RUN = (
    "sudo cat /proc/[0-9]*/maps 2>/dev/null | grep -o '/opt/ai-client/releases/[0-9a-f]*' | sort -u"
)


@pytest.fixture
def watched(running: Fleet) -> Iterator[Fleet]:
    """The stack with a gate that is long enough to see something; what it was comes back afterwards."""
    before = running.config()
    config = json.loads(json.dumps(before))
    # A machine that boots hosts beside the test makes requests slow, whatever the release.
    config["gate"] = {"seconds": GATE_S, "maxOverheadMs": 60_000}
    config["vars"] = {**config.get("vars", {}), "ai_health_deadline": 3}
    running.clone.configure(config)
    source = running.clone.folder / APP
    text = source.read_text()
    yield running
    source.write_text(text)
    running.clone.configure(before)
    running.clone.up()


@pytest.fixture
def rotating(running: Fleet) -> Iterator[Fleet]:
    """The stack with its first key, and a provider that takes every key, before and after."""
    key = running.key
    yield running
    control(running, "POST", "keys", {"refused": []})
    set_secrets(running, apiKey=key, apiKeyNext="")
    if any(keys_on(running, host) != {"key": fingerprint(key)} for host in HOSTS):
        running.clone.up()


def control(fleet: Fleet, method: str, what: str, body: dict[str, Any] | None = None) -> None:
    """Tells the provider how to behave."""
    sends = f"-X {method} -d '{json.dumps(body or {})}' http://10.88.0.1:8000/control/{what}"
    fleet.clone.ssh(CANARIES[0], f"curl -sS --fail-with-body {sends}")


def set_secrets(fleet: Fleet, **values: str) -> None:
    """Sets secrets of the stack; an empty one is taken away."""
    stack = ("--stack", fleet.clone.stack)
    for name, value in values.items():
        words = ("set", "--secret", name, *stack) if value else ("rm", name, *stack)
        fleet.clone.pulumi("config", *words, stdin=value or None, expect=0 if value else None)
    fleet.key = values.get("apiKey", fleet.key)


def current_release(fleet: Fleet, host: str) -> str:
    return (fleet.root_of(host) / "opt/ai-client/current").readlink().name


def keys_on(fleet: Fleet, host: str) -> dict[str, str]:
    """Fingerprints of the key files of a host."""
    folder = fleet.root_of(host) / "etc/ai-client"
    return {path.name: fingerprint(path.read_text().strip()) for path in sorted(folder.glob("key*"))}


def wave_of(fleet: Fleet, name: str) -> str:
    """The engine's name of one wave's run."""
    exported = json.loads(fleet.clone.pulumi("stack", "export", "--stack", fleet.clone.stack).output)
    resources = exported["deployment"]["resources"]
    return next(str(r["urn"]) for r in resources if r["urn"].endswith(f"::{name}"))


def test_a_healthy_release_that_answers_5xx_goes_back_and_no_further(watched: Fleet) -> None:
    """It passes `--health-check`; the canaries' counters stop it within seconds, and the stack says where and why."""
    before = {host: current_release(watched, host) for host in HOSTS}
    source = watched.clone.folder / APP
    source.write_text(source.read_text() + BROKEN)
    with contextlib.ExitStack() as stack:
        loads = [
            stack.enter_context(under_load(watched.clone, host, per_second=PER_SECOND, threads=4))
            for host in CANARIES
        ]
        failed = watched.clone.up(expect=1)
    said = failed.errors()
    for host, load in zip(CANARIES, loads, strict=True):
        assert re.search(
            rf"{host}: failed: answers with errors of its own: \d+ of \d+ \(\d+%\) requests", said
        )
        assert f"went back to release {before[host][:12]}" in said
        assert all(failure.startswith("500") for failure in load.failed)
        assert 0 < len(load.failed) < 10 * PER_SECOND
        assert '"result": "rolled back"' in _journal(watched, host)
        wait_until(lambda host=host: _releases_that_run(watched, host) == {before[host]}, within_s=30)
    assert not {"ai_api_clients-2", "ai_batch_workers-2"}.intersection(failed.changed())
    assert {host: current_release(watched, host) for host in HOSTS} == before
    assert in_text(failed.output, watched.key) == []


def _journal(fleet: Fleet, host: str) -> str:
    """The newest record of a host's release journal."""
    return (fleet.root_of(host) / "etc/ai-client/releases.jsonl").read_text().splitlines()[-1]


def _is_changing_hosts(fleet: Fleet) -> bool:
    """Whether a run has begun that does not only look."""
    return bool(fleet.own_processes("ansible-playbook", without="--check"))


def _releases_that_run(fleet: Fleet, host: str) -> set[str]:
    """Releases that a process has loaded something of."""
    return {line.rpartition("/")[2] for line in fleet.clone.ssh(host, RELEASES_THAT_RUN).output.split()}


def test_an_outage_of_the_upstream_during_a_roll_out_puts_nothing_back(watched: Fleet) -> None:
    """It begins while the canary is worked on: callers get the upstream's errors, and the good release stays."""
    host = CANARIES[0]
    before = current_release(watched, host)
    source = watched.clone.folder / APP
    source.write_text(f"{source.read_text()}\n# As good as before.\n")
    target = ("--target", wave_of(watched, "ai_api_clients-1"))
    with (
        under_load(watched.clone, host, per_second=PER_SECOND, threads=4) as load,
        ThreadPoolExecutor(1) as beside,
    ):
        run = beside.submit(watched.clone.up, *target)
        wait_until(lambda: run.done() or _is_changing_hosts(watched), within_s=300)
        control(watched, "POST", "faults", {"fault": "503", "count": 1_000_000})
        try:
            run.result()
        finally:
            control(watched, "DELETE", "faults")
    assert load.failed
    assert current_release(watched, host) != before
    result = watched.clone.output("hosts")[host]
    assert (result["failed"], result["rolled_back"]) == (False, False)
    assert result["watched"]["own_errors"] == 0
    assert "upstream" in result["message"]


@pytest.mark.parametrize(("name", "called"), [("apiKeyNext", "the next key"), ("apiKey", "the key")])
def test_a_key_that_the_provider_refuses_stops_the_rotation(rotating: Fleet, name: str, called: str) -> None:
    """The canary of each group tries it: no host gets it, every host keeps the old one, and the error names it."""
    before = {host: keys_on(rotating, host) for host in HOSTS}
    new = f"hs_test_refused_{secrets.token_hex(12)}"
    control(rotating, "POST", "keys", {"refused": [fingerprint(new)]})
    set_secrets(rotating, **{name: new})
    failed = rotating.clone.up(expect=1)
    for host in CANARIES:
        said = f"{host}: failed: {called} {fingerprint(new)}: the provider refuses the key with 401"
        assert said in failed.errors()
    assert {host: keys_on(rotating, host) for host in HOSTS} == before
    assert in_text(failed.output, new) == []


def test_a_key_is_rotated_in_two_steps_under_load(rotating: Fleet) -> None:
    """The next key goes out beside the old one, takes over when that is revoked, and becomes the key; nothing fails."""
    old, new = rotating.key, f"hs_test_second_{secrets.token_hex(12)}"
    pids = main_pids(rotating)
    with under_load(rotating.clone, CANARIES[0], per_second=PER_SECOND, threads=4) as load:
        set_secrets(rotating, apiKeyNext=new)
        rotating.clone.up()
        both = {"key": fingerprint(old), "key.next": fingerprint(new)}
        assert [keys_on(rotating, host) for host in HOSTS] == [both] * len(HOSTS)
        tried = {host: result["tried_keys"] for host, result in rotating.clone.output("hosts").items()}
        assert [host for host, trials in tried.items() if trials] == list(CANARIES)
        assert {trial["outcome"] for host in CANARIES for trial in tried[host]} == {"accepted"}
        assert [rotating.clone.ssh(host, OF_ANOTHER_USER).output for host in CANARIES] == ["", ""]
        control(rotating, "POST", "keys", {"refused": [fingerprint(old)]})
        seen = requests_by_key(rotating).get(fingerprint(new), 0)
        wait_until(lambda: requests_by_key(rotating).get(fingerprint(new), 0) > seen + PER_SECOND)
        set_secrets(rotating, apiKey=new, apiKeyNext="")
        rotating.clone.up()
    assert load.failed == []
    assert load.answered > PER_SECOND
    assert [keys_on(rotating, host) for host in HOSTS] == [{"key": fingerprint(new)}] * len(HOSTS)
    assert main_pids(rotating) == pids
