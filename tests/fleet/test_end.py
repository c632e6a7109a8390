"""The end of a stack: what `destroy` leaves on the machine and in the state, which is nothing."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.fleet.clones import another
from tests.fleet.conftest import HOSTS, STACK, Fleet
from tests.fleet.leaks import in_files, in_text
from tools.hosts.places import fleet_places

pytestmark = [pytest.mark.engine, pytest.mark.hosts]


def test_no_key_is_anywhere_after_all_that_went_wrong(running: Fleet) -> None:
    """Failed, killed and refused runs, hosts put back, crashes: keys are in the key files alone, and in no output."""
    hosts = [running.local / "hosts" / host for host in HOSTS]
    key_files = [host / tree / "etc/ai-client/key" for host in hosts for tree in ("root", "upper")]
    assert len(running.keys) > 1
    assert in_files([running.work, running.local], *running.keys, allowed=key_files) == []
    for key in running.keys:
        assert [found for text in running.clone.outputs if (found := in_text(text, key))] == []


def test_destroy_from_another_clone_leaves_nothing(running: Fleet) -> None:
    """The end: every host is decommissioned and removed; no process, mount, namespace or folder stays."""
    second = another(running.clone, running.work / "third")
    second.pulumi("destroy", "--yes", "--skip-preview", "--json")
    assert not running.local.exists()
    places = fleet_places(STACK, {})
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert not any(places.is_namespace(line.split()[0]) for line in spaces.splitlines())
    assert f"/{STACK}/" not in Path("/proc/self/mounts").read_text()
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert f"/local/{STACK}/" not in processes
    assert json.loads(second.pulumi("stack", "export").output)["deployment"].get("resources", [])[1:] == []
