"""Chooses what of a comment stays when all of it is too long.

Sizes are in bytes: a text has at least as many as characters, so a limit in characters is kept too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


def size(text: str) -> int:
    """Bytes of a text."""
    return len(text.encode())


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a comment that can be shortened. `forms` go from the whole to the shortest, which may be empty."""

    forms: tuple[str, ...]


def fit(pieces: Sequence[Piece], *, limit_bytes: int) -> list[int]:
    """Which form of each piece is taken, so that all are within the limit as far as their shortest forms allow.

    Pieces come with the most important first. All are shortened by one form, beginning with the least important,
    before any is shortened by a second.
    """
    levels = [0] * len(pieces)
    total = sum(size(piece.forms[0]) for piece in pieces)
    for level in range(1, max((len(piece.forms) for piece in pieces), default=0)):
        for index in reversed(range(len(pieces))):
            if total <= limit_bytes:
                return levels
            forms = pieces[index].forms
            if level < len(forms):
                total += size(forms[level]) - size(forms[level - 1])
                levels[index] = level
    return levels


def leading(items: Iterable[str], *, limit_bytes: int) -> list[str]:
    """As many of the items, from the first on, as are within the limit."""
    kept: list[str] = []
    left = limit_bytes
    for item in items:
        left -= size(item)
        if left < 0:
            break
        kept.append(item)
    return kept
