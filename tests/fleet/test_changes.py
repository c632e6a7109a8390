"""What users change on a stack that is up, and what goes wrong meanwhile, on real hosts through the real engine."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fleet.clones import Run
from tests.fleet.conftest import API_CLIENTS, BATCH_WORKERS, HOSTS, Fleet
from tests.fleet.leaks import in_text
from tests.fleet.load import under_load
from tests.fleet.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.hosts]

# The connections that are kept open, too.
STOP_SSH = """sudo sh -c 'systemctl stop ssh.socket ssh.service
for process in /proc/[0-9]*; do
    case "$(cat $process/comm 2>/dev/null)" in sshd*) kill -9 ${process#/proc/} ;; esac
done'"""


def fingerprint(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def requests_by_key(fleet: Fleet) -> dict[str, int]:
    """How many requests the provider has seen under each key, by its own count."""
    answer = fleet.clone.ssh("api-dev-01", "curl -s http://10.88.0.1:8000/control/stats").output
    return dict(json.loads(answer)["by_key"])


def main_pids(fleet: Fleet) -> dict[str, str]:
    show = "systemctl show --property MainPID --value ai-client"
    return {host: fleet.clone.ssh(host, show).output.strip() for host in HOSTS}


def config_of(fleet: Fleet, host: str) -> str:
    return (fleet.root_of(host) / "etc/ai-client/ai-client.conf").read_text()


@pytest.fixture
def configured(running: Fleet) -> Iterator[dict[str, Any]]:
    """The stack's configuration to change; what it was comes back afterwards, on the hosts too."""
    before = running.config()
    yield json.loads(json.dumps(before))
    running.clone.configure(before)
    running.clone.up()


def test_a_key_is_rotated_under_load_and_no_request_fails(running: Fleet) -> None:
    """The preview shows just the key; `up` rewrites the key file and reloads: nothing restarts, nothing is lost."""
    old, new = running.key, f"{running.key}_rotated"
    before = main_pids(running)
    running.set_key(new)
    said = running.clone.preview().messages()
    for host in HOSTS:
        assert f"{host}: differs" in said
    assert "/etc/ai-client/key" in said
    assert "/etc/ai-client/ai-client.conf" not in said
    assert in_text(said, new) == []
    _assert_shown_without_keys(running)
    with contextlib.ExitStack() as stack:
        loads = {host: stack.enter_context(under_load(running.clone, host, per_second=40)) for host in HOSTS}
        running.clone.up()
        seen = requests_by_key(running)
        wait_until(
            lambda: requests_by_key(running).get(fingerprint(new), 0) > seen.get(fingerprint(new), 0) + 60
        )
        assert requests_by_key(running)[fingerprint(old)] == seen[fingerprint(old)]
    assert {host: load.failed for host, load in loads.items()} == {host: [] for host in HOSTS}
    assert all(load.answered > 500 for load in loads.values())
    assert main_pids(running) == before
    assert {r["key_fingerprint"] for r in running.clone.output("hosts").values()} == {fingerprint(new)}


def _assert_shown_without_keys(fleet: Fleet) -> None:
    """The comment and the page of a preview name the key file of every host, and no key."""
    preview, comment, page = (fleet.work / name for name in ("preview.json", "comment.md", "page.html"))
    preview.write_text(fleet.clone.preview().output)
    render = ["tools/plan-comment", str(preview), "--comment", str(comment), "--html", str(page)]
    fleet.clone.run(*render)
    for shown in (comment.read_text(), page.read_text()):
        assert shown.count("/etc/ai-client/key") >= len(HOSTS)
        assert [in_text(shown, key) for key in fleet.keys] == [[] for _ in fleet.keys]


def test_a_changed_setting_reaches_every_host_of_its_group_and_no_other(
    running: Fleet, configured: dict[str, Any]
) -> None:
    """Waves of the one group run; the other group is left alone."""
    configured["groups"]["ai_api_clients"]["vars"]["ai_timeout"] = 17
    running.clone.configure(configured)
    planned = running.clone.planned()["plan"]
    assert all(planned[host] == {"state": "same"} for host in BATCH_WORKERS)
    assert [c["path"] for c in planned["api-dev-01"]["changes"]] == ["/etc/ai-client/ai-client.conf"]
    assert running.clone.up().changed() == {f"ai_api_clients-{wave}": "update" for wave in (1, 2, 3)}
    assert [h for h in HOSTS if "timeout = 17" in config_of(running, h)] == list(API_CLIENTS)


def test_quota_that_moves_is_given_up_before_it_is_taken(running: Fleet, configured: dict[str, Any]) -> None:
    """The group whose share falls has its lower limit everywhere before the other's first host has its higher one."""
    groups = configured["groups"]
    groups["ai_api_clients"]["share"], groups["ai_batch_workers"]["share"] = 0.4, 0.6
    running.clone.configure(configured)
    said = running.clone.preview().messages()
    assert "-rate_limit = 14400" in said
    assert "+rate_limit = 9600" in said
    running.clone.up()
    assert {_rate_limit(running, host) for host in API_CLIENTS} == {9_600}
    assert {_rate_limit(running, host) for host in BATCH_WORKERS} == {24_000}
    lowered = [_written_at(running, host) for host in API_CLIENTS]
    raised = [_written_at(running, host) for host in BATCH_WORKERS]
    assert max(lowered) < min(raised)


def _rate_limit(fleet: Fleet, host: str) -> int:
    (line,) = [line for line in config_of(fleet, host).splitlines() if line.startswith("rate_limit = ")]
    return int(line.removeprefix("rate_limit = "))


def _written_at(fleet: Fleet, host: str) -> float:
    return (fleet.root_of(host) / "etc/ai-client/ai-client.conf").stat().st_mtime


def test_a_service_that_crashes_comes_back_and_leaves_no_core(running: Fleet) -> None:
    """A core would hold the key. The same service answers again at once, under another process id."""
    before = main_pids(running)["api-dev-01"]
    running.clone.ssh("api-dev-01", "sudo systemctl kill --kill-whom=main --signal=SEGV ai-client")
    wait_until(lambda: main_pids(running)["api-dev-01"] not in ("0", before))
    with under_load(running.clone, "api-dev-01", per_second=20) as load:
        pass
    assert load.failed == []
    cores = "sudo find / -xdev -name 'core' -type f -o -xdev -name 'core.[0-9]*' -type f"
    assert running.clone.ssh("api-dev-01", cores).output == ""


def test_a_plan_that_no_longer_holds_is_refused(running: Fleet, configured: dict[str, Any]) -> None:
    """`requirePlan` is what a review agreed on: after a change on a host it is another plan."""
    configured["groups"]["ai_api_clients"]["vars"]["ai_timeout"] = 18
    running.clone.configure(configured)
    agreed = running.clone.planned()["planDigest"]
    running.clone.ssh("api-dev-02", "sudo sh -c 'echo \"# by hand\" >> /etc/ai-client/ai-client.conf'")
    running.clone.configure({**configured, "requirePlan": agreed})
    refused = running.clone.up(expect=1)
    assert f"plan {agreed} no longer holds" in refused.errors()
    assert "timeout = 18" not in config_of(running, "api-dev-01")
    running.clone.configure({**configured, "requirePlan": running.clone.planned()["planDigest"]})
    running.clone.up()
    assert "timeout = 18" in config_of(running, "api-dev-01")


def test_a_release_that_does_not_start_is_put_back_and_goes_no_further(running: Fleet) -> None:
    """The canary fails its health check: it is put back on the last good release, the next wave is not touched."""
    source = running.clone.folder / "client/src/ai_client/cli/serve.py"
    good = source.read_text()
    before = running.clone.output("hosts")
    source.write_text("raise SystemExit('a release that does not start')\n")
    try:
        failed = running.clone.up(expect=1)
        assert "api-dev-01: failed" in failed.errors()
        assert in_text(failed.output, running.key) == []
        for host in HOSTS:
            assert running.clone.ssh(host, "systemctl is-active ai-client").output.strip() == "active"
            current = running.clone.ssh(host, "readlink /opt/ai-client/current").output.strip()
            assert before[host]["release"] in current
        assert "ai_api_clients-2" not in failed.changed()
    finally:
        source.write_text(good)
    running.clone.up()
    assert running.clone.up("--expect-no-changes").changed() == {}


def test_a_host_that_cannot_be_reached_is_named_and_the_others_are_done(
    running: Fleet, configured: dict[str, Any]
) -> None:
    """Preview and `up` say which host and why; once it is back, `up` finishes it and touches no other."""
    configured["groups"]["dev"]["vars"]["ai_log_level"] = "WARNING"
    running.clone.configure(configured)
    running.clone.ssh("api-dev-02", STOP_SSH, expect=None)
    assert "api-dev-02: unreachable" in running.clone.preview().messages()
    failed = running.clone.up(expect=1)
    assert "api-dev-02: unreachable" in failed.errors()
    assert "level = WARNING" in config_of(running, "api-dev-01")
    running.kill_host("api-dev-02")
    changed = running.clone.up().changed()
    assert set(changed) == {"host-api-dev-02", "ai_api_clients-2", "ai_api_clients-3"}
    assert all("level = WARNING" in config_of(running, host) for host in HOSTS)


def test_a_host_that_dies_during_up_is_named_and_its_wave_is_done(
    running: Fleet, configured: dict[str, Any]
) -> None:
    """Reached by the look, then without power: the other host of its wave has the change, and no later wave has.

    The next `up` boots it and goes on with what is left.
    """
    configured["groups"]["ai_api_clients"]["vars"]["ai_pool_timeout"] = 23
    running.clone.configure(configured)
    with (running.work / "up.json").open("w+") as said:
        with subprocess.Popen(
            ["pulumi", "up", "--yes", "--skip-preview", "--json", "--non-interactive"],
            cwd=running.clone.folder,
            env=running.clone.environment(),
            stdout=said,
        ) as engine:
            wait_until(lambda: "pool_timeout = 23" in config_of(running, "api-dev-01"), within_s=120)
            running.kill_host("api-dev-03")
            status = engine.wait(300)
        said.seek(0)
        ended = Run(status, said.read())
    assert ended.status != 0
    assert "api-dev-03: unreachable" in ended.errors()
    done = [host for host in API_CLIENTS if "pool_timeout = 23" in config_of(running, host)]
    assert done == ["api-dev-01", "api-dev-02"]
    changed = running.clone.up().changed()
    assert set(changed) == {"host-api-dev-03", "ai_api_clients-2", "ai_api_clients-3"}
    assert all("pool_timeout = 23" in config_of(running, host) for host in API_CLIENTS)
    assert running.clone.up("--expect-no-changes").changed() == {}


@pytest.fixture(scope="module")
def killed_often(fleet: Fleet) -> Iterator[Fleet]:
    """The stack for runs that are killed; what it was comes back after the last of them, and then nothing is left."""
    if not fleet.local.exists():
        fleet.clone.up()
    before = fleet.config()
    yield fleet
    fleet.clone.configure(before)
    fleet.clone.up()
    assert fleet.clone.up("--expect-no-changes").changed() == {}


@pytest.mark.parametrize("killed", ["pulumi", "infra.run", "ansible-playbook", "ssh", "jump-dev-01"])
def test_after_a_kill_the_next_up_finishes_what_is_unfinished(killed_often: Fleet, killed: str) -> None:
    """SIGKILL of engine, run, Ansible, ssh or the jump host while hosts are worked on: nothing stays behind."""
    running, timeout_s = killed_often, 5 + len(killed)
    config = running.config()
    config["groups"]["dev"]["vars"]["ai_pool_timeout"] = timeout_s
    running.clone.configure(config)
    with subprocess.Popen(
        ["pulumi", "up", "--yes", "--skip-preview", "--json", "--non-interactive"],
        cwd=running.clone.folder,
        env=running.clone.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as engine:
        # The first runs are the probe's, in check mode.
        wait_until(lambda: bool(running.own_processes("ansible-playbook", without="--check")), within_s=60)
        if killed in running.config()["jumpHosts"]:
            running.kill_host(killed)
        victims = [engine.pid] if killed == "pulumi" else running.own_processes(killed, without="--check")
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        engine.wait(120)
    wait_until(lambda: not running.own_processes("ansible") and not running.own_processes("infra.run"))
    running.clone.pulumi("cancel", "--yes", expect=None)
    running.clone.up()
    assert list(running.clone.scratch.glob("ai-client-fleet-*")) == []
    assert all(f"pool_timeout = {timeout_s}" in config_of(running, host) for host in HOSTS)
    leftovers = "sudo find /etc/ai-client /opt/ai-client /var/lib/ai-client -name '*.tmp*' -o -name '*.new*'"
    assert {running.clone.ssh(host, leftovers).output for host in HOSTS} == {""}
