"""From a preview to a plan: how each host stands, why it changes, and which resources do. Masks every text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from infra.masking import mask, mask_forms
from infra.report import events
from infra.report.events import Preview, Step
from infra.report.model import Cause, Change, HostPlan, Plan, ResourceChange

COMMAND = "command:local:Command"
REMOVED = "removed"

_OPERATIONS = {
    "create": "create",
    "update": "update",
    "delete": "delete",
    "replace": "replace",
    "create-replacement": "replace",
    "delete-replaced": "replace",
    "import": "import",
}
# What a run's environment tells of its request, and what that is called.
_FACTS = {
    "CONTENT": "release or role",
    "VARIABLES": "variables",
    "KEY": "key",
    "KEY_NEXT": "next key",
    "HOSTS": "hosts of its wave",
    "RPM": "limits",
    "TPM": "limits",
    "GROUP": "group",
}
_NONCE = "NONCE"
_NO_WORD = re.compile(r"[^a-z0-9]+")
_NEEDS = "up still needs: "
# `HOST: STATE: MESSAGE` and then differences: how the program shows a plan to who reads the console.
_SAID_OF_HOST = re.compile(
    r"(?P<hosts>[a-z0-9-]+(?:, [a-z0-9-]+)*)(?: \(\d+ hosts\))?: "
    r"(?P<state>differs|unreachable|failed|unseen|away|cordoned)"
    r"(?:: (?P<message>[^\n]*))?\s*"
)
_DIFF_START = re.compile(
    r"^--- (?P<path>[^\n]*) (?:on the host|last applied)(?P<drift> \(drift\))?$", re.MULTILINE
)
# Follows every error of the program, and says nothing more.
_ENDED = re.compile(r"an unhandled error occurred: program exited with non-zero exit code")
# Says where this machine keeps its plugins, which is nobody's business.
_NOISE = re.compile(r"using pulumi-resource-\S+ from \$PATH at ")


def read(text: str) -> Plan:
    """The plan that a preview shows, in either form of `pulumi preview --json`.

    Raises:
        PreviewError: nothing in it can be read.
    """
    preview = events.read(text)
    planned = preview.outputs.get("plan")
    said = _joined(_said_of_hosts(preview))
    lists_hosts = isinstance(planned, dict)
    found = dict(_planned(planned)) if isinstance(planned, dict) else {**_unseen(preview), **said}
    waves = dict(_waves(preview.steps.values()))
    hosts = {name: _with_cause(host, waves.get(name)) for name, host in found.items()}
    hosts |= {host.name: host for host in _removed(preview.steps.values()) if host.name not in hosts}
    return Plan(
        stack=_stack(preview),
        hosts=tuple(hosts[name] for name in sorted(hosts)),
        resources=tuple(sorted(_resources(preview.steps.values()))),
        blockers=tuple(_blockers(preview)),
        errors=tuple(_errors(preview)),
        warnings=tuple(_messages(preview, "warning")),
        digest=_digest(preview.outputs.get("planDigest")),
        lists_hosts=lists_hosts,
        is_finished=preview.is_finished,
    )


def _stack(preview: Preview) -> str:
    for urn in preview.steps:
        parts = urn.split(":")
        if len(parts) > 2:
            return parts[2]
    return ""


def _digest(value: object) -> str:
    return value if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{8,128}", value) else ""


def _planned(planned: Mapping[str, Any]) -> Iterator[tuple[str, HostPlan]]:
    for name, entry in planned.items():
        shown = entry if isinstance(entry, dict) else {}
        listed = shown.get("changes")
        changes = tuple(_change(change) for change in listed) if isinstance(listed, list) else ()
        is_drift = shown.get("drift") is True
        plan = HostPlan(
            name=str(name),
            state=str(shown.get("state", "unseen")),
            message=mask(str(shown.get("message", ""))),
            changes=changes,
            cause=Cause.DRIFT if is_drift and _are_alike(changes) else Cause.NONE,
        )
        yield plan.name, plan


def _are_alike(changes: Iterable[Change]) -> bool:
    """Whether all changes are drift, or all are not marked, as in outputs of older programs."""
    return len({change.is_drift for change in changes}) <= 1


def _change(change: object) -> Change:
    """A change with its differences; in outputs of older programs it is a path alone."""
    if isinstance(change, dict):
        is_drift = change.get("drift") is True
        return Change(mask(str(change.get("path", ""))), mask(str(change.get("diff", ""))), is_drift)
    return Change(mask(str(change)), "")


def _unseen(preview: Preview) -> dict[str, HostPlan]:
    return {host: HostPlan(name=host, state="unseen") for host, _ in _waves(preview.steps.values())}


def _said_of_hosts(preview: Preview) -> Iterator[tuple[str, HostPlan]]:
    """What the program said of hosts on the console, for a preview that does not show its outputs."""
    for _, message in preview.messages:
        heads, rest = list[re.Match[str]](), message
        while match := _SAID_OF_HOST.match(rest):
            heads.append(match)
            rest = rest[match.end() :]
        for head in heads:
            for host in head["hosts"].split(", "):
                said, changes = mask(head["message"] or ""), tuple(_changes_in(rest))
                yield host, HostPlan(name=host, state=head["state"], message=said, changes=changes)


def _joined(said: Iterable[tuple[str, HostPlan]]) -> dict[str, HostPlan]:
    """Each host with the cause that is said of it, and with its changes, where those are said apart."""
    found: dict[str, HostPlan] = {}
    for name, plan in said:
        before = found.get(name)
        is_same = before is not None and before.state == plan.state
        found[name] = replace(before, changes=before.changes or plan.changes) if before and is_same else plan
    return found


def _changes_in(text: str) -> Iterator[Change]:
    starts = [*_DIFF_START.finditer(text)]
    ends = [match.start() for match in starts[1:]] + [len(text)]
    for start, end in zip(starts, ends, strict=False):  # text without a difference has an end alone
        diff = text[start.start() : end].rstrip("\n")
        if is_drift := bool(start["drift"]):
            diff = diff.replace(start["drift"], "", 1)
        yield Change(mask(start["path"]), mask(diff), is_drift)


def _waves(steps: Iterable[Step]) -> Iterator[tuple[str, Step]]:
    """Each host that a run is for, with that run."""
    for step in steps:
        environment = step.new.get("environment")
        if (
            step.kind == COMMAND
            and isinstance(environment, dict)
            and isinstance(environment.get("HOSTS"), str)
        ):
            yield from ((host, step) for host in environment["HOSTS"].split(",") if host)


def _with_cause(host: HostPlan, run: Step | None) -> HostPlan:
    """The host with why it changes: nothing but the nonce of its run changed where it drifted."""
    operation = run.operation if run else "same"
    visible_inputs = _visible_inputs(run) if run and operation not in {"same", "create"} else ()
    if host.cause is Cause.DRIFT:
        return replace(host, visible_inputs=visible_inputs)
    if operation == "create":
        return replace(host, cause=Cause.FIRST)
    if visible_inputs:
        return replace(host, cause=Cause.DECLARED, visible_inputs=visible_inputs)
    return replace(host, cause=Cause.DRIFT if host.state == "differs" else Cause.NONE)


def _visible_inputs(run: Step) -> tuple[str, ...]:
    """What of a run's inputs changed, in people's words.

    Its request is secret as a whole, and changes with what is known of other hosts too: it says nothing of this one.
    """
    before, after = (_environment(properties) for properties in (run.old, run.new))
    names = [
        name for name in sorted(before | after) if before.get(name) != after.get(name) and name != _NONCE
    ]
    return tuple(dict.fromkeys(_FACTS.get(name) or _NO_WORD.sub(" ", name.lower()) for name in names))


def _environment(properties: Mapping[str, Any]) -> dict[str, Any]:
    environment = properties.get("environment")
    return dict(environment) if isinstance(environment, dict) else {}


def _removed(steps: Iterable[Step]) -> Iterator[HostPlan]:
    for step in steps:
        claim = _environment(step.old).get("CLAIM")
        if step.operation == "delete" and claim:
            yield HostPlan(name=str(claim).rsplit("/", 1)[-1], state=REMOVED)


def _resources(steps: Iterable[Step]) -> Iterator[ResourceChange]:
    for step in steps:
        if step.operation in _OPERATIONS and step.kind != events.STACK:
            inputs = tuple(mask(path.removeprefix("environment.")) for path in step.changed)
            yield ResourceChange(_OPERATIONS[step.operation], mask_forms(step.name), step.kind, inputs)


def _blockers(preview: Preview) -> Iterator[str]:
    listed = preview.outputs.get("blockers")
    if isinstance(listed, list):
        yield from (mask_forms(str(blocker)) for blocker in listed)
    else:
        said = (message.strip() for _, message in preview.messages)
        yield from (
            mask_forms(message.removeprefix(_NEEDS)) for message in said if message.startswith(_NEEDS)
        )


def _errors(preview: Preview) -> list[str]:
    said = list(_messages(preview, "error"))
    return [error for error in said if not _ENDED.match(error)] or said


def _messages(preview: Preview, severity: str) -> Iterator[str]:
    """What was said with a severity and is shown nowhere else."""
    said = dict.fromkeys(message.strip() for level, message in preview.messages if level == severity)
    for message in said:
        if message and not (
            message.startswith(_NEEDS) or _SAID_OF_HOST.match(message) or _NOISE.match(message)
        ):
            yield mask_forms(message)
