"""Plans to show, and previews to read, with texts as hostile as hosts may send."""

import json
import string
from typing import Any

from hypothesis import strategies as st

from infra.report.model import Cause, Change, HostPlan, Plan, ResourceChange

CANARY = "xCANARYx"
STACK_URN = "urn:pulumi:production::fleet::pulumi:pulumi:Stack::fleet-production"
# How the engine says that a property differs.
UPDATED = {"diffKind": "update"}
COMMAND_URN = "urn:pulumi:production::fleet::fleet:index:Deployment$command:local:Command::"

_PIECES = [
    CANARY, f"@{CANARY}", f"[{CANARY}](http://evil.example)", f"<script>{CANARY}</script>", f"<img src={CANARY}>",
    f"https://evil.example/{CANARY}", f"<!-- {CANARY}", "-->", "</details>", "</code>", "</td></tr></table>", "\n\n",
    "\n", "\r", "```", "~~~", "````diff", "|", "\\", "&lt;", "&#64;", "#1", "> ", "- ", "**", "_", "`", "\x00",
    "\x1b[31m", "\u202e", "\u2028", "\u200b", '"', "'", " onmouseover=alert(1) ", "]]>", f":{CANARY}:", f"GH-{CANARY}",
]  # fmt: skip
HOSTILE = st.lists(st.sampled_from(_PIECES) | st.text(max_size=8), max_size=12).map("".join)
STATES = st.sampled_from(
    ["same", "differs", "absent", "blocked", "unseen", "away", "unreachable", "failed", "removed", "odd <b>"]
)
NAMES = st.text(string.ascii_lowercase + "-", min_size=1, max_size=12) | HOSTILE

CHANGES = st.builds(Change, HOSTILE, HOSTILE)
HOSTS = st.builds(
    HostPlan,
    name=NAMES,
    state=STATES,
    message=HOSTILE,
    changes=st.lists(CHANGES, max_size=3).map(tuple),
    cause=st.sampled_from(Cause),
    visible_inputs=st.lists(st.sampled_from(["key", "variables"]), max_size=2).map(tuple),
)
PLANS = st.builds(
    Plan,
    stack=HOSTILE,
    hosts=st.lists(HOSTS, max_size=8).map(tuple),
    resources=st.lists(
        st.builds(
            ResourceChange,
            st.sampled_from(["create", "delete"]),
            HOSTILE,
            HOSTILE,
            st.lists(HOSTILE, max_size=3).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    blockers=st.lists(HOSTILE, max_size=3).map(tuple),
    errors=st.lists(HOSTILE, max_size=3).map(tuple),
    warnings=st.lists(HOSTILE, max_size=3).map(tuple),
    lists_hosts=st.booleans(),
    is_finished=st.booleans(),
)


def differing(name: str, *, lines: int = 3, cause: Cause = Cause.DECLARED, own: str = "") -> HostPlan:
    """A host whose configuration differs in a number of lines."""
    body = "\n".join(f"+line {number} of the configuration {own}" for number in range(lines))
    diff = f"--- /etc/x.conf on the host\n+++ /etc/x.conf declared\n@@ -1 +1 @@\n{body}"
    return HostPlan(name=name, state="differs", changes=(Change("/etc/x.conf", diff),), cause=cause)


def command(
    name: str, operation: str, *, old: Any = None, new: Any = None, diff: Any = None
) -> dict[str, Any]:
    """The engine's metadata of a command resource, of which the environments are given."""
    states = {
        key: {"type": "command:local:Command", "inputs": {"environment": environment}}
        if environment
        else None
        for key, environment in (("old", old), ("new", new))
    }
    return {
        "op": operation,
        "urn": COMMAND_URN + name,
        "type": "command:local:Command",
        "detailedDiff": diff,
        **states,
    }


def stream(
    *commands: dict[str, Any], outputs: Any, said: tuple[tuple[str, str], ...] = (), **end: Any
) -> str:
    """A preview as the engine streams it."""
    stack = {"op": "same", "urn": STACK_URN, "type": "pulumi:pulumi:Stack", "old": None, "new": None}
    events: list[dict[str, Any]] = [{"resourcePreEvent": {"metadata": stack}}]
    events += [
        {"diagnosticEvent": {"severity": severity, "prefix": f"{severity}: ", "message": f"{text}\n"}}
        for severity, text in said
    ]
    events += [{"resourcePreEvent": {"metadata": metadata}} for metadata in commands]
    events += [{"resOutputsEvent": {"metadata": {**stack, "new": {"outputs": outputs}}}}]
    events += [{"summaryEvent": {"result": "succeeded", "resourceChanges": {}} | end}]
    return "".join(json.dumps({"sequence": n, **event}) + "\n" for n, event in enumerate(events))


def document(*commands: dict[str, Any], said: tuple[tuple[str, str], ...] = ()) -> str:
    """The same preview as the engine's one document: without outputs of the stack."""
    steps = [{"op": "same", "urn": STACK_URN, "newState": {"type": "pulumi:pulumi:Stack"}}]
    steps += [
        {
            **{key: shown[key] for key in ("op", "urn", "detailedDiff")},
            "oldState": shown["old"],
            "newState": shown["new"],
        }
        for shown in commands
    ]
    diagnostics = [
        {"severity": severity, "message": f"{severity}: {text}\n" if severity != "info" else f"{text}\n"}
        for severity, text in said
    ]
    return json.dumps({"steps": steps, "diagnostics": diagnostics, "changeSummary": {}}, indent=4)
