"""The engine's preview, from either form of `pulumi preview --json`, as steps and messages.

The document form never holds the outputs of the preview's own stack; the stream of events, which
`PULUMI_ENABLE_STREAMING_JSON_PREVIEW=1` asks for, does. Events are read by Pulumi's automation API; it has no type for
the document, and none for the `result` of a summary, by which a preview that failed is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pulumi.automation.events import EngineEvent, StepEventMetadata

from infra.errors import FleetError

STACK = "pulumi:pulumi:Stack"

Properties = Mapping[str, Any]


class PreviewError(FleetError):
    """A preview cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What the engine would do with one resource. `changed` are paths below its inputs, as `environment.KEY`."""

    operation: str
    urn: str
    kind: str
    old: Properties = field(default_factory=dict)
    new: Properties = field(default_factory=dict)
    changed: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The resource's own name."""
        return self.urn.rsplit("::", 1)[-1]


@dataclass(slots=True, kw_only=True)
class Preview:
    """Everything of a preview that a plan is made from.

    Attributes:
        steps: by URN; of a replacement the last step.
        outputs: the stack's outputs; empty where the preview does not show them.
        messages: severity and text of everything that was said, debugging aside.
        is_finished: whether the engine came to its summary, and that says success.
    """

    steps: dict[str, Step] = field(default_factory=dict)
    outputs: Properties = field(default_factory=dict)
    messages: list[tuple[str, str]] = field(default_factory=list)
    is_finished: bool = False


def read(text: str) -> Preview:
    """Reads a preview in either form.

    Raises:
        PreviewError: there is neither a document nor an event in it.
    """
    document = _document(text)
    if document is not None:
        return _from_document(document)
    preview, lines = Preview(), [line for line in text.splitlines() if line.startswith("{")]
    events = [event for line in lines if (event := _event(line, preview))]
    if not events and not preview.messages:
        raise PreviewError(
            "the preview",
            "shows no JSON",
            "see what the engine printed, and preview with 'pulumi preview --json'",
        )
    return _from_events(events, preview)


def _event(line: str, preview: Preview) -> Event | None:
    """The event in a line. What is not understood of it fails the preview, and stops nobody from reading the rest."""
    try:
        return engine_event(line)
    except PreviewError as error:
        preview.messages.append(("error", str(error)))
        return None


def _document(text: str) -> Properties | None:
    start = 0 if text.startswith("{") else text.find("\n{") + 1
    try:
        content = json.loads(text[start:])
    except ValueError:
        return None
    return content if isinstance(content, dict) and "sequence" not in content else None


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the engine, and how a run ended where it is a summary that says so."""

    told: EngineEvent
    result: str = "succeeded"


def engine_event(line: str | bytes) -> Event | None:
    """The event in a line of what the engine printed; None where it is something else, or was cut off.

    Raises:
        PreviewError: it tells of a step in words that this version of Pulumi's library does not know.
    """
    try:
        shown = json.loads(line)
    except ValueError:
        return None
    if not isinstance(shown, dict):
        return None
    try:
        told = EngineEvent.from_json(shown)
    except (ValueError, TypeError, AttributeError) as error:
        raise PreviewError(
            "the engine",
            f"contains something unexpected: {error}",
            "use the Pulumi that tools/env starts",
        ) from error
    return Event(told, str(_mapping(shown.get("summaryEvent")).get("result", "succeeded")))


def _from_document(document: Properties) -> Preview:
    preview = Preview(is_finished="changeSummary" in document)
    for shown in _mappings(document.get("steps")):
        new, old = _mapping(shown.get("newState")), _mapping(shown.get("oldState"))
        kind = str(new.get("type") or old.get("type") or "")
        _add_step(preview, shown, kind=kind, old=old, new=new)
        if kind == STACK:
            preview.outputs = _mapping(new.get("outputs"))
    for said in _mappings(document.get("diagnostics")):
        severity, message = str(said.get("severity")), str(said.get("message"))
        preview.messages.append((severity, message.removeprefix(f"{severity}: ")))
    return _with_errors(preview)


def _from_events(events: Iterable[Event], preview: Preview) -> Preview:
    for event in events:
        told = event.told
        if told.resource_pre_event is not None:
            _add_told(preview, told.resource_pre_event.metadata)
        if told.res_outputs_event is not None and told.res_outputs_event.metadata.type == STACK:
            new = told.res_outputs_event.metadata.new
            preview.outputs = _mapping(new.outputs) if new is not None else {}
        said = told.diagnostic_event
        if said is not None and said.severity != "debug" and not said.ephemeral:
            preview.messages.append((said.severity, said.message))
        if told.summary_event is not None:
            preview.is_finished = event.result == "succeeded"
    return _with_errors(preview)


def _add_told(preview: Preview, step: StepEventMetadata) -> None:
    preview.steps[step.urn] = Step(
        operation=step.op.value,
        urn=step.urn,
        kind=step.type,
        old=_mapping(step.old.inputs) if step.old is not None else {},
        new=_mapping(step.new.inputs) if step.new is not None else {},
        changed=tuple(step.detailed_diff or ()) or _names(step.diffs),
    )


def _add_step(preview: Preview, shown: Properties, *, kind: str, old: Properties, new: Properties) -> None:
    urn = str(shown.get("urn"))
    preview.steps[urn] = Step(
        operation=str(shown.get("op")),
        urn=urn,
        kind=kind,
        old=_mapping(old.get("inputs")),
        new=_mapping(new.get("inputs")),
        changed=tuple(_mapping(shown.get("detailedDiff"))) or _names(shown.get("diffReasons")),
    )


def _with_errors(preview: Preview) -> Preview:
    if any(severity == "error" for severity, _ in preview.messages):
        preview.is_finished = False
    return preview


def _mapping(value: object) -> Properties:
    return value if isinstance(value, dict) else {}


def _names(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _mappings(value: object) -> Iterable[Properties]:
    return [_mapping(item) for item in value] if isinstance(value, list) else []
