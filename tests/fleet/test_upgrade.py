"""A stack that an older program brought up, previewed and upgraded by this one.

The older program is the commit that this work began with. Its state knows resources by its names, its requests are of
its version, and the markers on its hosts name its claims.
"""

import io
import json
import secrets
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.clones import Clone, Run, clone
from tests.hosts_of_run import removed_at_the_end
from tests.infra.stacks import PROJECT, shipped

pytestmark = [pytest.mark.engine, pytest.mark.hosts]

FIRST_COMMIT = "b68139e58afec207af5f5cb975c030adf9854795"
STACK = "upgradetest"
LINK = "198.18.41.0/30"
#: Variables of the dev stack that the first commit does not know.
UNKNOWN_THEN = ("ai_gateway_unnamed_callers",)
HOSTS = ("api-dev-01", "api-dev-02", "batch-dev-01")


@dataclass
class Upgrade:
    """One stack, and the two checkouts that work on it.

    Attributes:
        old: checkout of the first commit.
        new: this one.
    """

    old: Clone
    new: Clone


def first_commit(folder: Path, state: Path) -> Clone:
    """A checkout of the first commit, in this one's environment."""
    argv = ["git", "archive", "--format=tar", FIRST_COMMIT]
    packed = subprocess.run(argv, cwd=PROJECT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    state.mkdir(exist_ok=True)
    return Clone(folder, state, STACK)


def config() -> dict[str, Any]:
    """The dev stack on a link of its own, as both programs read it."""
    content = shipped("dev")
    content["local"]["link"] = LINK
    content["gate"] = {"seconds": 0}
    for variable in UNKNOWN_THEN:
        content["groups"]["dev"]["vars"].pop(variable)
    return content


@pytest.fixture(scope="module")
def upgrade(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgrade]:
    """The stack, brought up by the first commit; machines and stack are gone afterwards."""
    work = tmp_path_factory.mktemp("upgrade")
    try:
        with removed_at_the_end(STACK):
            old = first_commit(work / "old", work / "state")
            old.pulumi("stack", "init", STACK)
            old.configure(config())
            key = f"hs_test_canary_{secrets.token_hex(12)}"
            old.pulumi("config", "set", "--secret", "apiKey", "--stack", STACK, stdin=key)
            old.up()
            new = clone(work / "new", state=work / "state", stack=STACK)
            shutil.copy(old.folder / f"Pulumi.{STACK}.yaml", new.folder)
            new.pulumi("stack", "select", STACK)
            yield Upgrade(old, new)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main_pids(checkout: Clone) -> dict[str, str]:
    """Main process of the service on each host."""
    ask = "systemctl show --property MainPID --value ai-client"
    return {host: checkout.ssh(host, ask).output.strip() for host in HOSTS}


def markers(checkout: Clone) -> dict[str, str]:
    """The claim that each host's marker names."""
    read = "sudo cat /etc/ai-client/claim.json"
    return {host: json.loads(checkout.ssh(host, read).output)["claim"] for host in HOSTS}


def removed(run: Run) -> dict[str, str]:
    """Resources that a run deletes or replaces."""
    return {name: op for name, op in run.changed().items() if "delete" in op or "replace" in op}


def test_a_preview_by_the_new_program_removes_and_replaces_nothing(upgrade: Upgrade) -> None:
    """Whatever was renamed or moved since: every resource is found again."""
    previewed = upgrade.new.preview()
    assert removed(previewed) == {}
    assert "hosts would be removed" not in previewed.output


def test_an_upgrade_hands_services_over_and_restarts_none_for_nothing(upgrade: Upgrade) -> None:
    """Claims and markers stay; a new release is a hand-over; only a unit that changed is a reason to restart."""
    owners = markers(upgrade.new)
    assert removed(upgrade.new.up()) == {}
    assert markers(upgrade.new) == owners == {host: f"fleet/{STACK}/{host}" for host in HOSTS}
    results = upgrade.new.output("hosts")
    for host in HOSTS:
        result = results[host]
        assert not result["failed"]
        restarts = [action for action in result["actions"] if action.startswith("restart")]
        assert not restarts or any("/systemd/" in path for path in result["changed_paths"]), result


def test_after_the_upgrade_nothing_changes(upgrade: Upgrade) -> None:
    """A second run has nothing to do, and touches no service."""
    before = main_pids(upgrade.new)
    assert upgrade.new.up("--expect-no-changes").changed() == {}
    assert main_pids(upgrade.new) == before


def test_the_old_states_hosts_leave_as_new_ones_do(upgrade: Upgrade) -> None:
    """`destroy` understands what either program recorded, and leaves nothing."""
    upgrade.new.pulumi("destroy", "--yes", "--skip-preview", "--json")
    assert not (Path("/var/lib/ai-client-fleet/local") / STACK).exists()
    exported = json.loads(upgrade.new.pulumi("stack", "export").output)
    assert exported["deployment"].get("resources", [])[1:] == []
