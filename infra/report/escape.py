"""Hostile text made harmless: nothing of it is markup, a mention, a link or a control character where it is shown."""

from __future__ import annotations

import re
import unicodedata

_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})
# Line and paragraph separators that are no `\n`, bidirectional overrides and whatever else shows as nothing.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_KEPT = str.maketrans("\n\t", "  ")
_FENCE_LENGTH = 3


def visible(text: str) -> str:
    """The text with control, formatting and unassigned characters written out, line ends and tabs kept."""
    if text.translate(_KEPT).isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in _INVISIBLE:
        return character
    return character.encode("unicode_escape").decode("ascii")


def one_line(text: str, *, longest: int = 400) -> str:
    """The text on one line, cut where it is longer than `longest` characters."""
    line = visible(" ⏎ ".join(text.strip().splitlines())).replace("\t", " ")
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def html(text: str) -> str:
    """The text for an element or an attribute of HTML."""
    return visible(text).translate(_HTML)


def code(text: str, *, longest: int = 400) -> str:
    """The text on one line as an element of code.

    For Markdown's blocks of HTML, in which no Markdown is read; in code no mention, link or emoji is made of it.
    """
    return f"<code>{one_line(text, longest=longest).translate(_HTML)}</code>"


def fenced(text: str, *, language: str) -> str:
    """The text as a fenced block of code, whose fence is longer than any run of its characters within."""
    shown = visible(text).rstrip("\n")
    fences = [mark * _length(shown, mark) for mark in "`~"]
    fence = min(fences, key=len)
    return f"{fence}{language}\n{shown}\n{fence}"


def _length(text: str, mark: str) -> int:
    longest = max((len(run) for run in re.findall(f"{re.escape(mark)}+", text)), default=0)
    return max(_FENCE_LENGTH, longest + 1)
