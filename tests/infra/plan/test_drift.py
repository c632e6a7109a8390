"""What of a host's differences is drift, and what a host that gives no answer is planned from."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from infra.plan import render
from infra.plan.drift import Inputs, inputs_of, judge
from infra.plan.finding import Difference, Finding, HostState
from infra.state.last_run import Applied

CONFIG, KEY = "/etc/ai-client/ai-client.conf", "/etc/ai-client/key"


def inventory(**variables: Any) -> dict[str, Any]:
    return {"all": {"children": {"web": {"hosts": {"one": {}}, "vars": variables}}}}


def applied(**variables: Any) -> Applied:
    """What a run left that went well."""
    text = render.files(render.host_variables(inventory(**variables), "one"))[CONFIG]
    result = {
        "release": "r1",
        "config_digest": hashlib.sha256(text.encode()).hexdigest(),
        "key_fingerprint": "k1",
        "key_next_fingerprint": "",
    }
    return Applied(inventory=inventory(**variables), content="c1", key="k1", key_next="", result=result)


def found(*paths: str, **seen: Any) -> Finding:
    """A host that differs in some paths; it is otherwise as the last run left it."""
    differences = tuple(Difference(path, f"--- {path} on the host") for path in paths)
    return Finding(HostState.DIFFERS, differences=differences, seen={**applied().result, **seen})


def drifted(finding: Finding, *, now: Inputs, last: Applied | None) -> list[str]:
    judged = judge(finding, "one", last=last, now=now)
    return [difference.path for difference in judged.differences if difference.is_drift]


NOW = inputs_of(applied(), "one")


def test_with_nothing_else_declared_whatever_differs_is_drift() -> None:
    """A mode, a unit that was stopped, a tampered release, a key: the host changed, not the declaration."""
    paths = [CONFIG, KEY, "unit ai-client.service", "/opt/ai-client/releases/r1", "/var/log/ai-client"]
    assert drifted(found(*paths), now=NOW, last=applied()) == paths


def test_a_declared_change_is_no_drift_on_a_host_that_is_as_it_was_left() -> None:
    """The file differs from what is declared and not from what was applied."""
    now = inputs_of(applied(ai_timeout=19), "one")
    assert drifted(found(CONFIG), now=now, last=applied()) == []


def test_a_host_changed_by_hand_is_drift_beside_a_declared_change() -> None:
    """Each path is judged by itself: the file was edited and is to change, the key only is to change."""
    now = replace(inputs_of(applied(ai_timeout=19), "one"), key="k2")
    edited = found(CONFIG, KEY, "unit ai-client.socket", config_digest="d" * 64)
    assert drifted(edited, now=now, last=applied()) == [CONFIG, "unit ai-client.socket"]


def test_another_release_is_no_drift_of_what_comes_with_it() -> None:
    """Role and release change units, folders and the release itself: nobody changed them by hand."""
    paths = ["/opt/ai-client/current", "/opt/ai-client/releases/r2", "/etc/systemd/system/ai-client.service"]
    assert drifted(found(*paths), now=replace(NOW, content="c2"), last=applied()) == []
    switched = found("/opt/ai-client/current", release="r0")
    assert drifted(switched, now=replace(NOW, content="c2"), last=applied()) == ["/opt/ai-client/current"]


def test_a_host_that_was_never_deployed_has_no_drift() -> None:
    """There is nothing that it could have drifted from."""
    assert drifted(found(CONFIG, KEY, "unit ai-client.service"), now=NOW, last=None) == []


def test_the_hosts_own_journal_knows_what_a_run_left_that_failed_elsewhere() -> None:
    """The state keeps the run before; the host has what its journal says, and was not changed by hand."""
    journal = {"config_digest": "e" * 64, "release": "r1", "key_fingerprint": "k1"}
    half_done = found(CONFIG, config_digest="e" * 64, journal=journal)
    now = inputs_of(applied(ai_timeout=19), "one")
    assert drifted(half_done, now=now, last=applied()) == []
    assert drifted(found(CONFIG, journal=journal), now=now, last=applied()) == [CONFIG]


def test_our_own_next_key_is_no_drift_where_its_run_failed_elsewhere() -> None:
    """The run is taken back: the host keeps the next key that it laid down, and the state knows nothing of it."""
    path = "/etc/ai-client/key.next"
    journal = {"key_next_fingerprint": "k2"}
    assert drifted(found(path, key_next_fingerprint="k2", journal=journal), now=NOW, last=applied()) == []
    assert drifted(found(path, key_next_fingerprint="k3", journal=journal), now=NOW, last=applied()) == [path]


@pytest.mark.parametrize("state", [HostState.UNREACHABLE, HostState.FAILED, HostState.UNSEEN])
def test_a_host_without_an_answer_is_planned_from_what_was_last_applied(state: HostState) -> None:
    """Files by their text, keys by their fingerprints, role and release by a digest; it says so."""
    now = replace(inputs_of(applied(ai_timeout=19, ai_gateway_port=0), "one"), key="k2", content="c2")
    plan = judge(Finding(state, "no route to host"), "one", last=applied(), now=now)
    assert plan.message == "no route to host; planned from what was last applied"
    diffs = {difference.path: difference.diff for difference in plan.differences}
    assert f"--- {CONFIG} last applied\n+++ {CONFIG} declared\n" in diffs[CONFIG]
    assert "-timeout = 30\n+timeout = 19\n" in diffs[CONFIG]
    assert diffs[KEY].endswith("-key k1\n+key k2")
    assert "-ListenStream=127.0.0.1:8800" in diffs["/etc/systemd/system/ai-client-tcp.socket"]
    assert diffs["role and release"].endswith("-c1\n+c2")


def test_nothing_to_change_on_a_silent_host_is_no_difference() -> None:
    """What is declared is what was applied."""
    plan = judge(Finding(HostState.UNREACHABLE, "gone"), "one", last=applied(), now=NOW)
    assert (plan.message, plan.differences) == ("gone; planned from what was last applied", ())


def test_a_silent_host_that_has_nothing_says_so() -> None:
    """There is nothing to plan from."""
    plan = judge(Finding(HostState.UNREACHABLE, "gone"), "one", last=None, now=NOW)
    assert plan.message == "gone; the state has no earlier run of it to plan from"


def test_a_template_that_changed_since_is_named() -> None:
    """Rendered anew, what was applied has another digest: then not all of the change is shown."""
    last = applied()
    last = replace(last, result={**last.result, "config_digest": "0" * 64})
    now = replace(NOW, content="c2")
    plan = judge(Finding(HostState.UNREACHABLE, "gone"), "one", last=last, now=now)
    assert plan.message.endswith("planned from what was last applied, whose template has changed since")


def test_an_expression_is_left_to_ansible() -> None:
    """Only Ansible can say what it comes to: the plan says so, and names the variable."""
    now = inputs_of(applied(), "one")
    now = replace(now, variables={**now.variables, "ai_provider": "{{ lookup('env', 'PROVIDER') }}"})
    plan = judge(Finding(HostState.UNREACHABLE, "gone"), "one", last=applied(), now=now)
    assert plan.message.startswith("gone; differences are not shown: ai_provider: is an expression")


def test_a_secret_in_a_variable_is_masked_in_the_plan() -> None:
    """A login in a proxy's address is shown neither as it was nor as it will be."""
    was, will = "http://u:first-pass@proxy:1", "http://u:other-pass@proxy:1"
    plan = judge(
        Finding(HostState.UNREACHABLE, "gone"),
        "one",
        last=applied(ai_proxy_url=was),
        now=inputs_of(applied(ai_proxy_url=will), "one"),
    )
    text = plan.as_text("one")
    assert "first-pass" not in text
    assert "other-pass" not in text
