"""A run killed at any of its steps: the next run finishes or removes what is left."""

import subprocess
import sys
from collections.abc import Iterator
from itertools import count

import pytest

from tests.tools.hosts_control import Control, leftovers

pytestmark = [pytest.mark.hosts, pytest.mark.slow]


@pytest.fixture(scope="module")
def control(new_control) -> Control:
    """A fleet that these tests make and remove again and again."""
    return new_control("crash")


@pytest.fixture(autouse=True)
def nothing_left(control: Control) -> Iterator[None]:
    """Every test ends with an empty machine."""
    yield
    control.ask("purge")
    assert leftovers(control) == []


def test_network_up_may_be_killed_at_any_step(control):
    """Purge removes all of it, and a second run finishes it."""
    for at in count(1):
        if not control.is_killed(at, "network", "up", order=control.network_order):
            break
        if at % 2:
            control.ask("network", "up", order=control.network_order)
            assert control.ask("status")["network"] is True
        control.ask("purge")
        assert leftovers(control) == [], f"after step {at}"
    assert at > 5


def test_host_up_may_be_killed_at_any_step(control):
    """A second run finishes the host; purge removes it, also while it boots and nobody has recorded it."""
    for at in count(1):
        control.ask("network", "up", order=control.network_order)
        if not control.is_killed(at, "host", "up", order=control.jump_order()):
            break
        if at % 3 == 0:
            made = control.ask("host", "up", order=control.jump_order())
            hosts = control.ask("status")["hosts"]
            assert hosts == {
                "jump": {
                    "running": True,
                    "made": True,
                    "host_keys": made["host_keys"],
                    "address": "10.88.0.10",
                }
            }
        control.ask("purge")
        assert leftovers(control) == [], f"after step {at}"
    assert at > 15


def test_host_down_may_be_killed_at_any_step(control):
    """A second run finishes it; the network can go then."""
    control.ask("network", "up", order=control.network_order)
    for at in count(1, 3):
        control.ask("host", "up", order=control.jump_order())
        if not control.is_killed(at, "host", "down", order=control.jump_order()):
            break
        control.ask("host", "down", order=control.jump_order())
    assert at > 3
    control.ask("network", "down")
    assert leftovers(control) == []


def test_a_purge_may_be_killed_at_any_step(control):
    """The next purge goes on."""
    for at in count(1, 4):
        control.ask("network", "up", order=control.network_order)
        control.ask("host", "up", order=control.jump_order())
        if not control.is_killed(at, "purge"):
            break
        control.ask("purge")
        assert leftovers(control) == [], f"after step {at}"
    assert at > 5


def test_purge_needs_no_record_and_spares_who_is_not_the_fleets(control):
    """Records gone or damaged: names lead to all that is the fleet's, and to nothing else."""
    control.ask("network", "up", order=control.network_order)
    control.ask("host", "up", order=control.jump_order())
    control.places.host("jump").process.unlink()
    control.places.host("jump").record.write_text("{")
    control.places.record.write_text("damaged")
    lodger = subprocess.Popen(
        ["ip", "netns", "exec", control.places.netns, sys.executable, "-c", "input()"], stdin=-1
    )
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1)
    try:
        control.ask("purge")
        assert lodger.wait(10) == -9
        assert bystander.poll() is None
    finally:
        for process in (lodger, bystander):
            process.kill()
            process.communicate()


def test_purge_of_what_never_was_is_done(control):
    """Twice, too."""
    assert [control.ask("purge"), control.ask("purge")] == [{}, {}]
