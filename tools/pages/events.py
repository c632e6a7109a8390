"""The events that metrics, logs and the audit trail are made from."""

from __future__ import annotations

import re
from typing import Any, get_args

from ai_client.contract import events
from tools.pages import markdown

_INTRO = """\
What happens to requests, as one stream of typed events (`ai_client.contract.events`). No event contains a key or any
text from a caller. Times are in seconds; `at` is seconds since the epoch."""


def text() -> str:
    """The page."""
    shared = [f"`{name}`" for name in events.RequestEvent.__annotations__]
    intro = f"{_INTRO}\n\nEvery event of a request also has {', '.join(shared)}."
    sections = [_section(kind, events.RequestEvent) for kind in get_args(events.Event)]
    return markdown.page("Events", intro, *sections)


def _section(kind: Any, request: type[Any]) -> str:
    # A class has only its own annotations, not those that it inherits.
    rows = [(f"`{name}`", f"`{kind_of_field}`") for name, kind_of_field in kind.__annotations__.items()]
    about = re.sub(r"\s+", " ", kind.__doc__ or "")
    of_request = " (of a request)" if issubclass(kind, request) else ""
    listed = markdown.table(("field", "type"), rows) if rows else ""
    return f"## {kind.__name__}{of_request}\n\n{about}\n\n{listed}"
