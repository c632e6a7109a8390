"""From the engine's JSON to a plan, in both of its forms."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.report import words
from infra.report.events import PreviewError
from infra.report.model import Cause, Change, Plan, ResourceChange
from infra.report.reading import read
from tests.infra.report.samples import STACK_URN, UPDATED, command, document, stream

RUN = {"HOSTS": "api-1,api-2", "CONTENT": "c", "VARIABLES": "v", "KEY": "k", "NONCE": "n"}
DIFF = "--- /etc/x on the host\n+++ /etc/x declared\n@@ -1 +1 @@\n-a\n+b"
KEY = "hs_test_0123456789abcdef"


def planned(**hosts: object) -> dict[str, object]:
    return {"plan": {name.replace("_", "-"): entry for name, entry in hosts.items()}}


def states(plan: Plan) -> dict[str, tuple[str, Cause]]:
    return {host.name: (host.state, host.cause) for host in plan.hosts}


def test_hosts_are_read_from_the_plan_output() -> None:
    """State, message and differences of each, as the program exports them."""
    text = stream(
        outputs=planned(
            api_1={"state": "differs", "changes": [{"path": "/etc/x", "diff": DIFF}]},
            api_2={"state": "unreachable", "message": "no route"},
        )
    )
    first, second = read(text).hosts
    assert (first.name, first.state, first.changes) == ("api-1", "differs", (Change("/etc/x", DIFF),))
    assert (second.state, second.message) == ("unreachable", "no route")
    assert read(text).stack == "production"
    assert read(text).lists_hosts


def test_a_plan_of_paths_alone_is_read_too() -> None:
    """As the first releases of the program exported it."""
    (host,) = read(stream(outputs=planned(api_1={"state": "differs", "changes": ["/etc/x"]}))).hosts
    assert host.changes == (Change("/etc/x", ""),)


@pytest.mark.parametrize(
    ("change", "cause", "visible_inputs"),
    [
        ({"NONCE": "m"}, Cause.DRIFT, ()),
        ({"VARIABLES": "w"}, Cause.DECLARED, ("variables",)),
        ({"KEY": "l", "NONCE": "m"}, Cause.DECLARED, ("key",)),
        ({"RPM": "1", "TPM": "2", "CONTENT": "d"}, Cause.DECLARED, ("release or role", "limits")),
        ({"NEW_<b>@all": "1"}, Cause.DECLARED, ("new b all",)),
        ({}, Cause.DRIFT, ()),
    ],
)
def test_a_host_drifted_where_nothing_declared_has_changed(
    change: dict[str, str], cause: Cause, visible_inputs: tuple[str, ...]
) -> None:
    """A run repeated for its nonce alone mends drift; anything else that changed in it is named in words of our own."""
    run = command(
        "api-1", "update", old=RUN, new={**RUN, **change}, diff={} if change else {"stdin": UPDATED}
    )
    plan = read(stream(run, outputs=planned(api_1={"state": "differs"}, api_2={"state": "same"})))
    assert (plan.hosts[0].cause, plan.hosts[0].visible_inputs) == (cause, visible_inputs)


def test_a_host_that_differs_and_that_no_run_mends_has_drifted() -> None:
    """The program may leave a host alone; what differs on it is named all the same."""
    run = command("api-1", "same", old=RUN, new=RUN)
    plan = read(stream(run, outputs=planned(api_1={"state": "differs"}, api_2={"state": "same"})))
    assert states(plan) == {"api-1": ("differs", Cause.DRIFT), "api-2": ("same", Cause.NONE)}


def test_the_program_may_say_itself_that_a_host_drifted() -> None:
    """What it says goes before what its runs suggest."""
    run = command("api-1", "update", old=RUN, new={**RUN, "KEY": "l"})
    plan = read(stream(run, outputs=planned(api_1={"state": "differs", "drift": True})))
    assert plan.hosts[0].cause is Cause.DRIFT
    assert words.reason(plan.hosts[0]) == "changed on the host; also declared: key"


def test_a_first_run_is_no_drift() -> None:
    """Whatever is on a host before the stack's first deploy."""
    plan = read(stream(command("api-1", "create", new=RUN), outputs=planned(api_1={"state": "differs"})))
    assert plan.hosts[0].cause is Cause.FIRST


def test_a_claim_that_is_deleted_is_a_host_to_decommission() -> None:
    """A host that is only moved to another claim stays a host of the plan."""
    gone = command("claim-old-1", "delete", old={"CLAIM": "fleet/production/old-1"})
    moved = command("claim-api-1-i-0", "delete", old={"CLAIM": "fleet/production/api-1"})
    plan = read(stream(gone, moved, outputs=planned(api_1={"state": "same"})))
    assert states(plan) == {"api-1": ("same", Cause.NONE), "old-1": ("removed", Cause.NONE)}


@pytest.mark.parametrize("form", [stream, document])
def test_resources_that_change_are_listed_in_both_forms(form: object) -> None:
    """Reads and resources that stay are none; a replacement is one."""
    commands = (
        command("a", "update", old=RUN, new=RUN, diff={"environment.KEY": UPDATED, "stdin": UPDATED}),
        command("b", "create", new=RUN),
        command("c", "create-replacement", old=RUN, new=RUN),
        command("c", "replace", old=RUN, new=RUN),
        command("c", "delete-replaced", old=RUN),
        command("d", "same", old=RUN, new=RUN),
    )
    plan = read(stream(*commands, outputs={}) if form is stream else document(*commands))
    kind = "command:local:Command"
    assert plan.resources == (
        ResourceChange("create", "b", kind),
        ResourceChange("replace", "c", kind),
        ResourceChange("update", "a", kind, ("KEY", "stdin")),
    )


def test_hosts_of_which_the_same_was_said_are_all_read() -> None:
    """Changes have a line a host above one difference; a cause has one line for all hosts that suffer from it."""
    plan = read(
        document(
            said=(
                ("info", f"api-1: differs\napi-2: differs\n{DIFF}"),
                ("warning", "web-1, web-2 (2 hosts): unreachable: jump host jump-1 does not answer: refused"),
            )
        )
    )
    assert {host.name: (host.state, len(host.changes)) for host in plan.hosts} == {
        "api-1": ("differs", 1),
        "api-2": ("differs", 1),
        "web-1": ("unreachable", 0),
        "web-2": ("unreachable", 0),
    }
    assert plan.warnings == ()


def test_a_document_shows_hosts_by_what_was_said_of_them() -> None:
    """It never holds the stack's outputs: hosts come from runs, states and differences from messages."""
    plan = read(
        document(
            command("api-1", "update", old=RUN, new={**RUN, "NONCE": "m"}),
            said=(
                ("warning", "up still needs: fleet:apiKey: no upstream key for api; set it"),
                ("info", f"api-1: differs\n{DIFF}\n{DIFF.replace('/etc/x', '/etc/y')}"),
                ("warning", "api-2: unreachable: no route to host"),
                ("warning", "using pulumi-resource-command from $PATH at /somewhere"),
                ("warning", "take care"),
            ),
        )
    )
    assert states(plan) == {"api-1": ("differs", Cause.DRIFT), "api-2": ("unreachable", Cause.NONE)}
    assert [change.path for change in plan.hosts[0].changes] == ["/etc/x", "/etc/y"]
    assert plan.hosts[0].changes[0].diff == DIFF
    assert plan.hosts[1].message == "no route to host"
    assert plan.blockers == ("fleet:apiKey: no upstream key for api; set it",)
    assert plan.warnings == ("take care",)
    assert not plan.lists_hosts


@pytest.mark.parametrize("outputs", [{"plan": "04da6b54-80e4-46f7-96ec-b56ff0331ba9"}, {}, {"plan": ["x"]}])
def test_outputs_that_are_not_known_yet_are_no_plan(outputs: object) -> None:
    """What is shown says so."""
    plan = read(stream(command("api-1", "create", new=RUN), outputs=outputs))
    assert not plan.lists_hosts
    assert states(plan) == {"api-1": ("unseen", Cause.FIRST), "api-2": ("unseen", Cause.FIRST)}


@pytest.mark.parametrize(
    "text",
    [
        stream(outputs={}, said=(("error", "fleet:groups: is missing"),)),
        document(said=(("error", "fleet:groups: is missing"),)),
    ],
)
def test_a_preview_with_an_error_has_failed(text: str) -> None:
    """In both forms, whatever its summary says; and the error is told."""
    plan = read(text)
    assert not plan.is_finished
    assert plan.changes_something
    assert plan.errors == ("fleet:groups: is missing",)


def test_that_the_program_ended_is_said_only_where_it_said_no_more() -> None:
    """The engine adds it to every error."""
    ended = ("error", "an unhandled error occurred: program exited with non-zero exit code: 1")
    assert read(stream(outputs={}, said=(("error", "a: is missing"), ended))).errors == ("a: is missing",)
    assert read(stream(outputs={}, said=(ended,))).errors == (ended[1],)


@pytest.mark.parametrize("lines", range(1, 4))
def test_a_preview_that_was_cut_off_has_failed(lines: int) -> None:
    """An engine that was killed leaves no summary, and half a line."""
    text = stream(command("a", "create", new=RUN), outputs={})
    cut = "".join(text.splitlines(keepends=True)[:lines]) + '{"sequence": 9, "resou'
    assert not read(cut).is_finished
    assert not read(stream(outputs={}, result="failed")).is_finished


@pytest.mark.parametrize("text", ["", "error: no stack selected\n", "{broken", "[]", '"x"', "\n\n"])
def test_what_is_no_preview_is_refused_with_a_remedy(text: str) -> None:
    """The engine prints no JSON where it does not come that far."""
    with pytest.raises(PreviewError, match="pulumi preview --json"):
        read(text)


def test_what_is_printed_before_the_json_does_no_harm() -> None:
    """Standard error may be in the same file."""
    for text in (stream(outputs=planned(a={"state": "same"})), document(command("a", "create", new=RUN))):
        assert read(f"engine: the stand-in serves\n{text}") == read(text)


def test_nothing_to_change_is_told_from_something() -> None:
    """A preview of a fleet that is as declared changes nothing; a host that was not seen may."""
    assert not read(stream(outputs=planned(a={"state": "same"}))).changes_something
    assert read(stream(outputs=planned(a={"state": "unseen"}))).changes_something


def test_secrets_are_masked_wherever_they_stand() -> None:
    """In differences, paths, messages, blockers, errors, warnings, names of resources."""
    plan = read(
        stream(
            command(f"claim-{KEY}", "create", new=RUN, diff={f"environment.{KEY}": UPDATED}),
            outputs={
                "plan": {
                    "a": {
                        "state": "differs",
                        "changes": [{"path": f"/{KEY}", "diff": f"-password = word-{KEY}"}],
                    },
                    "b": {"state": "failed", "message": "--token abcd"},
                },
                "blockers": [f"needs {KEY}"],
            },
            said=(("error", f"is {KEY}"), ("warning", f"https://me:{KEY}@host")),
        )
    )
    assert KEY not in str(plan)
    assert "abcd" not in str(plan)
    assert "word-" not in str(plan)


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )
)
def test_no_shape_of_outputs_or_steps_stops_the_reading(shape: object) -> None:
    """The preview is that of a pull request's own program: it may say anything."""
    metadata = {
        "op": shape,
        "urn": STACK_URN,
        "type": shape,
        "old": shape,
        "new": {"inputs": shape},
        "detailedDiff": shape,
    }
    texts = [
        stream(outputs=shape),
        stream(outputs={"plan": shape, "blockers": shape, "planDigest": shape}),
        stream(outputs={"plan": {"a": shape, "b": {"state": shape, "changes": shape, "message": shape}}}),
        stream(metadata, outputs={}),
        stream(
            command("x", "update", old={"CLAIM": shape, "HOSTS": shape}, new={"HOSTS": shape}), outputs={}
        ),
        json.dumps({"steps": shape, "diagnostics": shape, "changeSummary": shape}),
        json.dumps(
            {"steps": [metadata, shape], "diagnostics": [shape, {"severity": shape, "message": shape}]}
        ),
    ]
    assert all(isinstance(read(text), Plan) for text in texts)


def test_a_host_that_drifted_and_is_declared_anew_has_its_drift_marked() -> None:
    """Both causes are told, and in the differences those that are drift."""
    changes = [{"path": "/etc/x", "diff": DIFF, "drift": True}, {"path": "/etc/y", "diff": "d"}]
    run = command("api-1", "update", old=RUN, new={**RUN, "VARIABLES": "w"})
    outputs = planned(api_1={"state": "differs", "drift": True, "changes": changes})
    (host,) = [host for host in read(stream(run, outputs=outputs)).hosts if host.name == "api-1"]
    assert words.reason(host) == "declared: variables; also changed on the host"
    assert words.label(host).word == "changes"
    shown = [words.diff_text(change, host=host).split("\n")[0] for change in host.changes]
    assert shown == ["--- /etc/x on the host (drift)", "d"]


def test_a_plan_of_a_silent_host_says_where_it_is_from() -> None:
    """On the console and in the outputs alike."""
    text = "api-1: unreachable: gone\n--- /etc/x last applied\n+++ /etc/x declared\n@@ -1 +1 @@\n-a\n+b"
    (host,) = read(document(said=(("warning", text),))).hosts
    assert [change.path for change in host.changes] == ["/etc/x"]
    assert words.reason(host) == "planned from what was last applied"


def test_drift_that_the_console_marks_is_read() -> None:
    """The head of a difference says so."""
    marked = DIFF.replace("on the host\n", "on the host (drift)\n")
    (host,) = read(document(said=(("info", f"api-1: differs\n{marked}"),))).hosts
    assert host.changes == (Change("/etc/x", DIFF, is_drift=True),)


def test_a_cause_and_the_plans_of_its_hosts_are_read_together() -> None:
    """The cause is said once, and then what is planned for each."""
    plan = "\n--- /etc/x last applied\n+++ /etc/x declared\n@@ -1 +1 @@\n-a\n+b"
    hosts = read(
        document(
            said=(
                ("warning", "api-1, api-2 (2 hosts): failed: one cause"),
                ("info", f"api-1: failed: planned from what was last applied{plan}"),
            )
        )
    ).hosts
    assert [(host.name, host.message, len(host.changes)) for host in hosts] == [
        ("api-1", "one cause", 1),
        ("api-2", "one cause", 0),
    ]
