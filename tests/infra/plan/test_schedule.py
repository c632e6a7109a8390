"""What hosts really have counts, where a run failed half way and the state knows nothing of it."""

from dataclasses import replace

from infra.config.schema import AccountSettings
from infra.plan.finding import Finding, HostState
from infra.plan.probe import finding_of
from infra.plan.schedule import as_found
from infra.state import turns
from infra.state.last_run import HostLimits, Recorded


def limits(group: str, rpm: int) -> HostLimits:
    return HostLimits(group=group, rpm=rpm, tpm=0)


DECLARED = {"a1": limits("a", 80), "b1": limits("b", 20)}
BEFORE = Recorded(limits={"a1": limits("a", 20), "b1": limits("b", 80)})
WAVES = {"a": [["a1"]], "b": [["b1"]]}


def differs(rpm: int, **seen: object) -> Finding:
    return Finding(HostState.DIFFERS, seen={"release": "r", "limits": (rpm, 0), **seen})


def rising(last: Recorded) -> frozenset[str]:
    return turns.turns(last.limits, DECLARED, WAVES, AccountSettings(rpm=100)).rising


def test_a_host_that_was_raised_by_a_run_that_failed_elsewhere_is_known_to_have_more() -> None:
    """The state says 20 and 80, the hosts have 80 and 80: nothing is left to rise, and b1 falls first."""
    found = as_found(
        BEFORE, {"a1": Finding(HostState.SAME, seen={"release": "r"}), "b1": differs(80)}, DECLARED
    )
    assert (found.limits["a1"].rpm, found.limits["b1"].rpm) == (80, 80)
    assert rising(BEFORE) == {"a"}
    assert rising(found) == frozenset()


def test_what_nobody_saw_is_as_the_state_says() -> None:
    """A host out of reach, and one that nothing was ever put on."""
    silent = {"a1": Finding(HostState.UNREACHABLE), "b1": Finding(HostState.DIFFERS, seen={"limits": (0, 0)})}
    assert as_found(BEFORE, silent, DECLARED) == BEFORE


def test_of_a_models_limits_the_larger_one_counts_where_the_file_differs() -> None:
    """It may be that of the last run, or of one that failed."""
    models = {"gpt": {"tokens_per_minute": 70}}
    recorded = Recorded(limits={"b1": replace(BEFORE.limits["b1"], models=models)})
    declared = {"b1": replace(DECLARED["b1"], models={"gpt": {"tokens_per_minute": 30, "burst_s": 5}})}
    found = as_found(recorded, {"b1": differs(80)}, declared)
    assert found.limits["b1"].models == {"gpt": {"tokens_per_minute": 70, "burst_s": 5}}
    same = as_found(recorded, {"b1": Finding(HostState.SAME, seen={"release": "r"})}, declared)
    assert same.limits["b1"].models == declared["b1"].models


def test_the_limits_are_read_from_the_file_on_the_host() -> None:
    """Its text is in the answer of the probe, where it differs."""
    text = "[performance]\nrate_limit = 80\ntoken_limit = \n"
    entry = {
        "path": "/etc/ai-client/ai-client.conf",
        "before": text,
        "after": text.replace("80", "20"),
        "diff": "",
    }
    finding = finding_of("h", {"h": {"changed": True, "release": "r", "diffs": [entry]}})
    assert finding.seen["limits"] == (80, 0)
    assert "limits" not in finding_of("h", {"h": {"changed": True, "release": "r", "diffs": []}}).seen
