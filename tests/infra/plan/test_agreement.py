"""`planDigest`: everything that a run does changes it, and no wording does."""

from collections.abc import Callable
from typing import Any

import pytest

from infra.hosts import fleet
from infra.plan.agreement import _standing, plan_digest
from infra.plan.finding import Difference, Finding, HostState
from infra.plan.schedule import schedule
from infra.plan.visible_inputs import VisibleInputs
from infra.state.last_run import Recorded
from tests.infra.stacks import HOST_KEY, KEY, load, shipped

Config = dict[str, Any]


def digest(
    change: Callable[[Config], Any] = lambda config: None,
    *,
    leaving: tuple[str, ...] = (),
    message: str = "",
    diff: str = "",
) -> str:
    config = shipped("production") | {"apiKey": KEY, "jumpHosts": {"hop": {"address": "10.0.0.9"}}}
    change(config)
    settings = load(config)
    order = schedule(settings, fleet.build(settings), Recorded())
    differences = (Difference("/etc/x", diff),) if diff else ()
    return plan_digest(
        settings,
        order.fleet,
        visible=VisibleInputs(settings, order.fleet),
        waves=order.waves,
        leaving=leaving,
        findings={n.name: Finding(HostState.DIFFERS, message, differences) for n in order.fleet.targets},
    )


def group(config: Config) -> Config:
    return dict.__getitem__(config["groups"], "ai_api_clients")


def host(config: Config) -> Config:
    return dict.__getitem__(group(config)["hosts"], "web-prod-01")


CHANGES: dict[str, Callable[[Config], Any]] = {
    "address": lambda c: host(c).update(address="10.9.9.9"),
    "port": lambda c: host(c).update(port=2222),
    "host key": lambda c: host(c).update(hostKeys=[HOST_KEY]),
    "certificate authority": lambda c: c.update(ssh={"certificateAuthority": [HOST_KEY]}),
    "login": lambda c: c.update(user="other"),
    "jump host": lambda c: host(c).update(jump=["hop"]),
    "the jump host's address": lambda c: c["jumpHosts"]["hop"].update(address="10.0.0.8"),
    "waves": lambda c: group(c).update(canary=0, serial=["100%"]),
    "gate": lambda c: c.update(gate={"seconds": 0}),
    "variable": lambda c: c.update(vars={"ai_timeout": 9}),
    "cordon": lambda c: c.update(cordon=["web-prod-01"]),
    "a host more": lambda c: group(c)["hosts"].update({"web-prod-09": {"address": "10.0.1.99"}}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_changes_what_a_run_does_changes_the_digest(what: str) -> None:
    """`requirePlan` would else carry out what nobody agreed on."""
    assert digest(CHANGES[what]) != digest()


def test_what_leaves_is_part_of_the_plan() -> None:
    """Two plans that differ in nothing but a removal are two plans."""
    assert digest(leaving=("fleet/production/old",)) != digest()


def test_whether_a_release_is_built_yet_makes_no_other_plan() -> None:
    """A preview of a runner without a build agrees to the same runs: the content of the release is part of them."""
    unit = Difference("/etc/systemd/system/ai-client.service", "-a\n+b")
    links = [Difference(f"/opt/ai-client/releases/{name}", "+x") for name in ("not-built-yet", "0123")]
    standings = [_standing(Finding(HostState.DIFFERS, "", (unit, link))) for link in links]
    assert standings[0] == standings[1] != _standing(Finding(HostState.SAME))
    assert _standing(Finding(HostState.DIFFERS, "", (links[1],))) == _standing(Finding(HostState.SAME))
    damaged = Difference(links[1].path, "+x", is_drift=True)
    assert _standing(Finding(HostState.DIFFERS, "", (damaged,))) != _standing(Finding(HostState.SAME))


def test_no_wording_changes_the_digest() -> None:
    """What ssh says of a host differs from one try to the next, and diffs have heads of their own."""
    assert digest(message="Connection timed out") == digest(message="No route to host")
    heads = [
        f"--- x {side}\n+++ x declared\n@@ -{line} +{line} @@\n-a\n+b"
        for side, line in (("here", 1), ("there", 2))
    ]
    assert digest(diff=heads[0]) == digest(diff=heads[1])
    assert digest(diff=heads[0]) != digest(diff=heads[0] + "c")
