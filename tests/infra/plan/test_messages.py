"""What a preview says of hosts: alike ones together, every host in the sums."""

from dataclasses import replace

import pytest

from infra.plan import drift
from infra.plan.finding import Difference, Finding, HostState, difference
from infra.plan.messages import alike, show, sums

TIMEOUT = difference("/etc/ai-client/ai-client.conf", "timeout = 30\n", "timeout = 45\n", side="on the host")
DRIFT = Difference("/etc/ai-client/key", "--- a\n+++ b", is_drift=True)
SAME = Finding(HostState.SAME)


def test_hosts_that_change_alike_share_one_diff() -> None:
    """Three one-line changes on three hosts are three headlines and one diff of six lines."""
    change = Finding(HostState.DIFFERS, differences=(TIMEOUT,))
    found = alike({"web-01": change, "web-02": SAME, "web-03": change, "api-01": change})
    assert found == [(["web-01", "web-03", "api-01"], change)]
    assert sum(body.count("\n") + 1 for body in change.bodies()) == 5


def test_hosts_that_change_in_another_way_are_apart() -> None:
    """Another difference, the same as drift, or another reason."""
    findings = {
        "a": Finding(HostState.DIFFERS, differences=(TIMEOUT,)),
        "b": Finding(HostState.DIFFERS, differences=(DRIFT,)),
        "c": Finding(HostState.UNREACHABLE, "no route"),
        "d": Finding(HostState.UNREACHABLE, "timed out"),
    }
    assert [hosts for hosts, _ in alike(findings)] == [["a"], ["b"], ["c"], ["d"]]


def test_what_a_host_that_is_as_declared_has_to_say_is_shown() -> None:
    """A drop-in that is left alone, for one."""
    noted = Finding(HostState.SAME, "drop-in /etc/x.conf, left alone: Nice=5")
    assert alike({"a": SAME, "b": noted, "c": noted}) == [(["b", "c"], noted)]


def test_the_sums_count_every_host_once_and_name_those_that_stay() -> None:
    """Whatever their state, and also where nothing changes."""
    findings = {
        "a": Finding(HostState.DIFFERS, differences=(TIMEOUT,)),
        "b": Finding(HostState.DIFFERS, differences=(DRIFT,)),
        "c": SAME,
    }
    assert sums(findings) == "3 hosts: 2 to change (1 by drift), 1 as declared: c"
    assert sums({"c": SAME}) == "1 host: 1 as declared: c"
    every = {state.value: Finding(state) for state in HostState}
    said = sums(every)
    assert said.startswith(f"{len(HostState)} hosts: ")
    assert said.count("1 ") == len(HostState)


def test_a_cause_is_said_once_for_all_its_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven hosts behind a dead jump host are one warning; changes stay a line a host."""
    said: list[str] = []
    for level in ("warn", "info"):
        monkeypatch.setattr(f"pulumi.log.{level}", said.append)
    monkeypatch.setattr("pulumi.runtime.is_dry_run", lambda: True)
    dead = Finding(HostState.UNREACHABLE, "jump host jump-1 does not answer: refused")
    change = Finding(HostState.DIFFERS, differences=(TIMEOUT,))
    show({f"web-{n}": dead for n in range(7)} | {"a": change, "b": change})
    assert said[0] == ", ".join(f"web-{n}" for n in range(7)) + f" (7 hosts): unreachable: {dead.message}"
    assert said[1].splitlines()[:2] == ["a: differs", "b: differs"]
    assert len(said) == 3


def test_a_cause_is_said_once_where_plans_differ_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One warning, each plan below it, and that no host was seen."""
    said: list[tuple[str, str]] = []
    for level in ("warn", "info"):
        monkeypatch.setattr(f"pulumi.log.{level}", lambda text, level=level: said.append((level, text)))
    monkeypatch.setattr("pulumi.runtime.is_dry_run", lambda: True)
    cause = "value of ai_log_level must be one of: DEBUG; write one"
    failed = Finding(HostState.FAILED, f"{cause}; {drift.FROM_LAST}")
    other = difference("/etc/x", "port = 1\n", "port = 2\n", side="last applied")
    show(
        {
            "a": replace(failed, differences=(TIMEOUT,)),
            "b": replace(failed, differences=(other,)),
            "c": failed,
        }
    )
    assert [text for level, text in said if level == "warn" and cause in text] == [
        f"a, b, c (3 hosts): failed: {cause}; {drift.FROM_LAST}"
    ]
    assert [text.splitlines()[0] for level, text in said if level == "info"][:2] == [
        f"{host}: failed: {drift.FROM_LAST}" for host in "ab"
    ]
    assert said[-1][0] == "warn"
    assert said[-1][1].startswith(
        "probing a, b, c failed: the plan for them is based on what was last applied"
    )
