"""Bad releases, bad configurations, bad keys and outages: when a host goes back, and to what."""

from __future__ import annotations

import json

import pytest
from applier.on_host.health import judge

from tests.ansible.folder_host import KEY_2, Rig, Wanted, artefact, varied

GOOD = Wanted()


def running(rig: Rig) -> dict[str, str]:
    """What the service works with."""
    seen: dict[str, str] = rig.host.state["running"]["ai-client.service"]
    return seen


@pytest.mark.parametrize("fault", ["unhealthy", "refuses"])
def test_a_bad_release_is_put_back_with_its_configuration_and_units(rig: Rig, fault: str) -> None:
    """It fails its health check or does not even start: release, config and units are the last good ones again."""
    rig.ask(GOOD)
    bad = Wanted(
        packed=artefact(**{fault: "broken"}), config="[api]\ntimeout = 5\n", unit_note="A=1\n", tcp=False
    )
    answer = rig.ask(varied(bad, run="run-2"))
    assert (answer.failed, answer.rolled_back) == (True, True)
    assert f"went back to release {GOOD.digest[:12]}" in answer.message
    assert running(rig)["release"] == f"releases/{GOOD.digest}"
    assert running(rig)["config"] == GOOD.config
    assert "ai-client-tcp.socket" in rig.host.state["running"]
    after = rig.ask(GOOD)
    assert (after.changed, after.failed) == (False, False)


def test_a_rollback_never_brings_an_old_key_back(rig: Rig) -> None:
    """Release and key change together, the release is bad: the old release runs with the new key."""
    rig.ask(GOOD)
    answer = rig.ask(Wanted(packed=artefact(unhealthy="broken"), key=KEY_2, run="run-2"))
    assert answer.rolled_back
    assert running(rig) == {"release": f"releases/{GOOD.digest}", "config": GOOD.config, "key": f"{KEY_2}\n"}
    assert "hs_test_" not in rig.path("/etc/ai-client/good.json").read_text()


def test_a_refused_configuration_goes_back_without_a_restart(rig: Rig) -> None:
    """The service keeps its old configuration when it refuses a reload; the file follows."""
    rig.ask(GOOD)
    commands = len(rig.host.state["commands"])
    answer = rig.ask(Wanted(config="refuse-reload\n", run="run-2"))
    assert (answer.failed, answer.rolled_back) == (True, True)
    assert "line 1 is wrong" in answer.message
    assert rig.path("/etc/ai-client/ai-client.conf").read_text() == GOOD.config
    assert rig.host.state["commands"][commands:] == ["reload", "reload"]


def test_an_outage_of_the_upstream_rolls_nothing_back(rig: Rig) -> None:
    """The upstream failed before the change and fails after it: the new release stays, and the answer says why."""
    rig.ask(GOOD)
    rig.host.fail(upstream="connection refused", tls="can't be reached")
    newer = Wanted(packed=artefact(v="2"), run="run-2")
    answer = rig.ask(newer)
    assert (answer.failed, answer.rolled_back) == (False, False)
    assert "connection refused" in answer.message
    assert running(rig)["release"] == f"releases/{newer.digest}"


def test_a_first_deploy_during_an_outage_fails_and_keeps_the_service(rig: Rig) -> None:
    """Nobody can tell an outage from a wrong address there; the service stays up for whoever looks at it."""
    rig.host.fail(upstream="connection refused")
    answer = rig.ask(GOOD)
    assert (answer.failed, answer.rolled_back) == (True, False)
    assert "ai-client.service" in rig.host.state["running"]


def test_a_first_release_that_is_bad_is_stopped(rig: Rig) -> None:
    """There is nothing to go back to, and nothing of a failed release is left running."""
    answer = rig.ask(Wanted(packed=artefact(unhealthy="broken")))
    assert (answer.failed, answer.rolled_back) == (True, False)
    assert rig.host.state["running"] == {}
    assert not rig.ask(GOOD).failed


def test_a_key_that_is_refused_stays_and_fails(rig: Rig) -> None:
    """The rotation is reported as failed; the old key, which may be revoked, is not brought back."""
    rig.ask(GOOD)
    rig.host.fail(key="the key file can't be read")
    answer = rig.ask(Wanted(key=KEY_2, run="run-2"))
    assert (answer.failed, answer.rolled_back) == (True, False)
    assert running(rig)["key"] == f"{KEY_2}\n"


def test_a_run_is_undone_on_hosts_that_it_left_healthy(rig: Rig) -> None:
    """A wave goes back together: the state before the run returns, with the present key, and a second call is done."""
    rig.ask(GOOD)
    newer = Wanted(packed=artefact(v="2"), config="[api]\ntimeout = 5\n", key=KEY_2, run="run-2")
    assert not rig.ask(newer).failed
    undo = Wanted(mode="rollback", run="run-2", parts=())
    answer = rig.ask(undo)
    assert (answer.failed, answer.changed, answer.rolled_back) == (False, True, True)
    assert running(rig) == {"release": f"releases/{GOOD.digest}", "config": GOOD.config, "key": f"{KEY_2}\n"}
    assert not rig.ask(undo).changed
    assert (
        json.loads(rig.path("/etc/ai-client/releases.jsonl").read_text().splitlines()[-1])["result"]
        == "rolled back"
    )


def test_undoing_a_run_that_did_not_touch_the_host_does_nothing(rig: Rig) -> None:
    """The host of a later wave stays as it is."""
    rig.ask(GOOD)
    files = rig.files()
    answer = rig.ask(Wanted(mode="rollback", run="run-9", parts=()))
    assert (answer.failed, answer.changed) == (False, False)
    assert rig.files() == files


def test_a_host_without_an_earlier_state_says_so(rig: Rig) -> None:
    """Its only good state is of the run itself."""
    rig.ask(GOOD)
    answer = rig.ask(Wanted(mode="rollback", run="run-1", parts=()))
    assert answer.failed
    assert "no good state from before run run-1" in answer.message


@pytest.mark.parametrize(
    ("faults", "before", "changed", "expected"),
    [
        ((), (), True, (False, False)),
        (("config",), (), True, (True, True)),
        (("service",), (), False, (True, False)),
        (("upstream",), ("upstream",), True, (False, False)),
        (("upstream",), (), True, (True, True)),
        (("upstream",), (), False, (False, False)),
        (("upstream", "tls"), ("upstream", "tls"), True, (False, False)),
        (("upstream", "config"), ("upstream",), True, (True, True)),
        (("key",), (), True, (True, False)),
        (("key", "upstream", "tls"), (), True, (True, False)),
        (("disk",), (), True, (True, False)),
        (("disk",), ("disk",), True, (True, False)),
        (("config",), ("config",), True, (True, False)),
        (("coordination",), (), True, (True, False)),
        (("coordination",), ("coordination",), True, (False, False)),
        (("coordination", "upstream"), ("coordination", "upstream"), True, (False, False)),
    ],
)
def test_the_verdict_follows_from_what_failed_before_and_after(
    faults: tuple[str, ...], before: tuple[str, ...], changed: bool, expected: tuple[bool, bool]
) -> None:
    """Failed, and goes back: only what the change can have caused sends a host back."""
    checks = {
        name: {"ok": name not in faults}
        for name in ("config", "key", "tls", "upstream", "disk", "service", "coordination")
    }
    verdict = judge({"checks": checks}, is_changed=changed, failed_before=frozenset(before), only_asked=False)
    assert (verdict.is_failed, verdict.rolls_back) == expected
