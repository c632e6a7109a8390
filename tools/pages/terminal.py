"""A terminal as an SVG of text: a README shows a real run, and its text can be searched and copied."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from html import escape

_COLUMNS = 104
_MOST_LINES = 17
_CHARACTER_PX = 7.25
_LINE_PX = 18
_MARGIN_PX = 16
_BAR_PX = 30
_STYLE = """
    .back { fill: #f6f8fa; stroke: #d0d7de } .text { fill: #1f2328 } .command { fill: #0969da } .mark { fill: #afb8c1 }
    @media (prefers-color-scheme: dark) {
      .back { fill: #161b22; stroke: #30363d } .text { fill: #e6edf3 }
      .command { fill: #79c0ff } .mark { fill: #484f58 }
    }
    text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre }
"""


def svg(command: str, lines: Sequence[str], *, title: str) -> str:
    """The picture: the command behind a prompt, then each line, broken where it is longer than the terminal is wide.

    Args:
        command: what was typed.
        lines: what it printed.
        title: what the picture shows, for readers who can't see it.
    """
    shown = [("command", f"$ {command}")]
    shown += [("text", part) for line in lines for part in _broken(line)]
    width = round(2 * _MARGIN_PX + _COLUMNS * _CHARACTER_PX)
    height = _BAR_PX + len(shown) * _LINE_PX + _MARGIN_PX
    marks = "".join(f'<circle class="mark" cx="{x}" cy="16" r="5"/>' for x in (18, 36, 54))
    rows = "\n".join(
        f'  <text class="{kind}" x="{_MARGIN_PX}" y="{_BAR_PX + (row + 1) * _LINE_PX - 4}">{escape(line)}</text>'
        for row, (kind, line) in enumerate(shown)
        if line
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        f' role="img" aria-label="{escape(title)}">\n'
        f"  <style>{_STYLE}  </style>\n"
        f'  <rect class="back" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>{marks}\n'
        f"{rows}\n</svg>\n"
    )


def _broken(line: str) -> list[str]:
    """A line in pieces of the terminal's width, broken at spaces where there are any; further pieces are indented."""
    return textwrap.wrap(line, _COLUMNS, subsequent_indent="      ", break_on_hyphens=False) or [""]


def last_run(log: str) -> list[str]:
    """The last lines of what `make up` printed, without what `time` adds.

    Raises:
        ValueError: the run did not come to its end.
    """
    lines = [line.rstrip() for line in log.splitlines()]
    end = next((row for row, line in enumerate(lines) if line.strip() == "make down"), None)
    if end is None:
        raise ValueError("no whole run of `make up` is in it")
    return ["…", *lines[: end + 1][-_MOST_LINES:]]
