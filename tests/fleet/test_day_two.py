"""What operators do on a fleet that runs, one thing at a time, on real hosts through the real engine."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.clones import Run
from tests.fleet.conftest import API_CLIENTS, BATCH_WORKERS, HOSTS, Fleet
from tests.fleet.leaks import in_text
from tests.fleet.test_changes import STOP_SSH, config_of

pytestmark = [pytest.mark.engine, pytest.mark.hosts]

EDIT = "sudo sh -c 'echo \"# by hand\" >> /etc/ai-client/ai-client.conf'"
CONFIG = "/etc/ai-client/ai-client.conf"


@pytest.fixture
def declared(running: Fleet) -> Iterator[dict[str, Any]]:
    """The stack's configuration to change; what it was comes back afterwards, on the hosts too."""
    before = running.config()
    yield json.loads(json.dumps(before))
    running.clone.configure(before)
    running.clone.up()


def with_timeout(fleet: Fleet, declared: dict[str, Any], seconds: int) -> None:
    """Declares another timeout for all hosts."""
    for group in ("ai_api_clients", "ai_batch_workers"):
        declared["groups"][group]["vars"]["ai_timeout"] = seconds
    fleet.clone.configure(declared)


def have_timeout(fleet: Fleet, seconds: int) -> set[str]:
    return {host for host in HOSTS if f"\ntimeout = {seconds}\n" in config_of(fleet, host)}


def outputs_of(preview: Run) -> dict[str, Any]:
    """The stack's outputs as a preview foretells them: those that its root resource has in the end."""
    ended = [
        event["resOutputsEvent"]["metadata"] for event in preview.json_lines() if "resOutputsEvent" in event
    ]
    return dict([one for one in ended if one["type"] == "pulumi:pulumi:Stack"][-1]["new"]["outputs"])


def release_of(fleet: Fleet, host: str) -> str:
    return (fleet.root_of(host) / "opt/ai-client/current").readlink().name


def test_a_preview_tells_drift_from_what_is_declared_and_plans_hosts_that_are_silent(
    running: Fleet, declared: dict[str, Any]
) -> None:
    """Edited, to change, both, or not to be reached: of each host what is known, and where it is known from."""
    edited, silent, other = "batch-dev-03", "api-dev-04", "api-dev-01"
    running.clone.ssh(edited, EDIT)
    running.clone.ssh(other, "sudo systemctl stop ai-client.service ai-client.socket")
    running.clone.ssh(silent, STOP_SSH, expect=None)
    declared["groups"]["ai_api_clients"]["vars"]["ai_timeout"] = 19
    running.clone.configure(declared)
    preview = running.clone.preview()
    plan = outputs_of(preview)["plan"]
    assert {name for name, entry in plan.items() if entry.get("drift")} == {edited, other}
    drifted = {change["path"] for change in plan[other]["changes"] if change.get("drift")}
    assert drifted == {"unit ai-client.service", "unit ai-client.socket"}
    assert [c for c in plan["api-dev-02"]["changes"] if c.get("drift")] == []
    assert f"--- {CONFIG} on the host (drift)" in preview.messages()
    assert plan[silent]["state"] == "unreachable"
    assert plan[silent]["message"].endswith("planned from what was last applied")
    (change,) = plan[silent]["changes"]
    assert f"--- {CONFIG} last applied" in change["diff"]
    assert "-timeout = 30\n+timeout = 19" in change["diff"]
    running.kill_host(silent)


def test_a_group_is_deployed_alone_and_its_progress_is_shown(
    running: Fleet, declared: dict[str, Any]
) -> None:
    """`tools/up` with `--target`: other groups stay as they are, and the next preview has them."""
    with_timeout(running, declared, 21)
    ran = running.clone.run("tools/up", running.clone.stack, "--target", "**::ai_batch_workers-*")
    assert have_timeout(running, 21) == set(BATCH_WORKERS)
    assert "(wave ai_batch_workers 2/2: " in ran.output
    assert f"{len(HOSTS)} hosts done, 0 failed)" in ran.output
    assert {name.rpartition("-")[0] for name in running.clone.preview().changed()} == {"ai_api_clients"}


def test_a_cordoned_host_and_a_pinned_group_are_left_when_a_release_goes_out(
    running: Fleet, declared: dict[str, Any]
) -> None:
    """The cordoned one keeps all that is on it, the pinned ones their release; all others get the new one."""
    before = {host: release_of(running, host) for host in HOSTS}
    build = Path(running.clone.run("tools/artefact/build").output.strip().splitlines()[-1])
    pin = hashlib.sha256((build / "index.json").read_bytes()).hexdigest()
    source = running.clone.folder / "client/src/ai_client/cli/usage.py"
    good = source.read_text()
    declared["groups"]["ai_batch_workers"]["vars"]["ai_client_digest"] = pin
    declared["cordon"] = ["api-dev-02"]
    with_timeout(running, declared, 23)
    source.write_text(f"{good}\n# another release\n")
    try:
        assert running.clone.planned()["plan"]["api-dev-02"]["state"] == "cordoned"
        changed = running.clone.up().changed()
        assert not any(name.startswith("claim-") for name in changed)
        assert have_timeout(running, 23) == set(HOSTS) - {"api-dev-02"}
        after = {host: release_of(running, host) for host in HOSTS}
        assert {host for host in HOSTS if after[host] != before[host]} == set(API_CLIENTS) - {"api-dev-02"}
        declared["groups"]["ai_api_clients"]["vars"]["ai_client_digest"] = pin
        running.clone.configure(declared | {"cordon": []})
        running.clone.up()
        assert {host: release_of(running, host) for host in HOSTS} == before
        assert have_timeout(running, 23) == set(HOSTS)
    finally:
        source.write_text(good)


def test_a_release_that_is_not_here_fails_the_preview(running: Fleet, declared: dict[str, Any]) -> None:
    """Before a host is asked for anything."""
    declared["groups"]["ai_batch_workers"]["vars"]["ai_client_digest"] = "f" * 64
    running.clone.configure(declared)
    refused = running.clone.pulumi("preview", "--json", expect=None)
    assert refused.status != 0
    assert "fleet:groups.ai_batch_workers.vars.ai_client_digest: no build on this machine" in refused.output


def test_a_saved_plan_mends_the_drift_that_it_foretold_and_no_other(running: Fleet) -> None:
    """`up --plan` runs what the preview saved; drift that came later is refused. The plan holds no key."""
    plan = str(running.work / "plan.json")
    running.clone.ssh("batch-dev-01", EDIT)
    running.clone.pulumi("preview", "--save-plan", plan)
    assert in_text(Path(plan).read_text(), running.key) == []
    assert running.clone.up("--plan", plan).changed() == {"ai_batch_workers-1": "update"}
    running.clone.pulumi("preview", "--save-plan", plan)
    running.clone.ssh("batch-dev-02", EDIT)
    assert "violates plan" in running.clone.up("--plan", plan, expect=1).errors()
    assert running.clone.up().changed() == {"ai_batch_workers-2": "update"}


def test_a_refresh_changes_nothing(running: Fleet) -> None:
    """A deploy cannot be read back by the engine: neither state nor hosts are other than before."""
    running.clone.pulumi("refresh", "--yes", "--skip-preview")
    assert running.clone.up("--expect-no-changes").changed() == {}
