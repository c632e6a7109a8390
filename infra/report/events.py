"""The engine's preview, from either form of `pulumi preview --json`, as steps and messages.

The document form never holds the outputs of the preview's own stack; the stream of events, which
`PULUMI_ENABLE_STREAMING_JSON_PREVIEW=1` asks for, does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

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
    events = list(_events(text.splitlines()))
    if not events:
        raise PreviewError(
            "the preview",
            "shows no JSON",
            "see what the engine printed, and preview with 'pulumi preview --json'",
        )
    return _from_events(events)


def _document(text: str) -> Properties | None:
    start = 0 if text.startswith("{") else text.find("\n{") + 1
    try:
        content = json.loads(text[start:])
    except ValueError:
        return None
    return content if isinstance(content, dict) and "sequence" not in content else None


def _events(lines: Iterable[str]) -> Iterable[Properties]:
    for line in lines:
        if line.startswith("{"):
            try:
                event = json.loads(line)
            except ValueError:
                continue  # the engine was killed within a line
            if isinstance(event, dict):
                yield event


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


def _from_events(events: Iterable[Properties]) -> Preview:
    preview = Preview()
    for event in events:
        if shown := _metadata(event, "resourcePreEvent"):
            old, new = _mapping(shown.get("old")), _mapping(shown.get("new"))
            _add_step(preview, shown, kind=str(shown.get("type")), old=old, new=new)
        if (shown := _metadata(event, "resOutputsEvent")) and shown.get("type") == STACK:
            preview.outputs = _mapping(_mapping(shown.get("new")).get("outputs"))
        said = _mapping(event.get("diagnosticEvent"))
        if said and said.get("severity") != "debug" and not said.get("ephemeral"):
            preview.messages.append((str(said.get("severity")), str(said.get("message"))))
        if end := _mapping(event.get("summaryEvent")):
            preview.is_finished = end.get("result", "succeeded") == "succeeded"
    return _with_errors(preview)


def _metadata(event: Properties, name: str) -> Properties:
    return _mapping(_mapping(event.get(name)).get("metadata"))


def _add_step(preview: Preview, shown: Properties, *, kind: str, old: Properties, new: Properties) -> None:
    urn = str(shown.get("urn"))
    preview.steps[urn] = Step(
        operation=str(shown.get("op")),
        urn=urn,
        kind=kind,
        old=_mapping(old.get("inputs")),
        new=_mapping(new.get("inputs")),
        changed=tuple(_mapping(shown.get("detailedDiff")))
        or _names(shown.get("diffs") or shown.get("diffReasons")),
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
