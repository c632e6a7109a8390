"""Colour on a reader's terminal, by the engine's own directives: it shows none elsewhere, and heeds NO_COLOR.

A directive that the engine does not know ends it with a stack trace, so that text of others must hold none.
"""

from __future__ import annotations

_DIRECTIVE = "<{%"
_RESET = "<{%reset%}>"
_COLOURS = (("--- ", "bold"), ("+++ ", "bold"), ("@@ ", "fg 6"), ("+", "fg 2"), ("-", "fg 1"))


def inert(text: str) -> str:
    """The text without anything that the engine would take for a directive."""
    return text.replace(_DIRECTIVE, "<{ %")


def coloured(diff: str) -> str:
    """A unified diff in colour: its head bold, what comes green, what goes red."""
    return "\n".join(map(_line, inert(diff).split("\n")))


def _line(line: str) -> str:
    colour = next((colour for start, colour in _COLOURS if line.startswith(start)), None)
    return f"<{{%{colour}%}}>{line}{_RESET}" if colour else line
