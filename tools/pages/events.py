"""The events that metrics, logs and the audit trail are made from."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from typing import Any, get_args

from tools.pages import markdown

_INTRO = """\
What happens to requests, as one typed stream (`ai_client.events`). None holds a key or any text of a caller. Times are
seconds; `at` is wall-clock time since the epoch."""


def text() -> str:
    """The page."""
    from ai_client import events  # noqa: PLC0415 - the client may lack parts while it grows

    kinds = [kind for kind in get_args(events.Event) if is_dataclass(kind)]
    shared = [field.name for field in fields(events.RequestEvent)]
    intro = f"{_INTRO}\n\nEvents of a request have, beside their own, {', '.join(f'`{name}`' for name in shared)}."
    return markdown.page("Events", intro, *(_section(kind, events.RequestEvent) for kind in kinds))


def _section(kind: Any, request: type[Any]) -> str:
    inherited = {field.name for field in fields(request)} if issubclass(kind, request) else set()
    rows = [(f"`{field.name}`", f"`{field.type}`") for field in fields(kind) if field.name not in inherited]
    about = re.sub(r"\s+", " ", kind.__doc__ or "")
    of_request = " (of a request)" if inherited else ""
    listed = markdown.table(("field", "type"), rows) if rows else ""
    return f"## {kind.__name__}{of_request}\n\n{about}\n\n{listed}"
