"""Tables and cells of Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

_VALUE = re.compile(r"V\((\w+)\)")


def page(title: str, *parts: str) -> str:
    """A whole page. It says that nobody should edit it."""
    note = "<!-- Written by tools/reference from the code: change that, then `make reference`. -->"
    return "\n\n".join([f"# {title}", note, *(part.strip("\n") for part in parts if part)]) + "\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown already."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def code(value: object) -> str:
    """A value as code, as YAML and JSON write it; nothing for what is empty or not there."""
    if value is None or value in ("", [], {}):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def from_ansible(text: str) -> str:
    """A description of Ansible's: its marks of values (`V(auto)`) as code."""
    return _VALUE.sub(r"`\1`", text)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
