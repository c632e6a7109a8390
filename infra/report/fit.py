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
    """A part of a comment that can be shortened.

    Attributes:
        forms: from the whole to the shortest, which may be empty.
        rank: how much it matters, 0 the most.
    """

    forms: tuple[str, ...]
    rank: int = 0


def fit(pieces: Sequence[Piece], *, limit_bytes: int) -> list[int]:
    """Which form of each piece is taken, so that all are within the limit as far as their shortest forms allow.

    What matters less is shortened to nothing before what matters more is touched. Within a rank all are shortened by
    one form, the last ones first, before any is by a second.
    """
    levels = [0] * len(pieces)
    total = sum(size(piece.forms[0]) for piece in pieces)
    for level, index in _steps(pieces):
        if total <= limit_bytes:
            break
        forms = pieces[index].forms
        total += size(forms[level]) - size(forms[level - 1])
        levels[index] = level
    return levels


def _steps(pieces: Sequence[Piece]) -> list[tuple[int, int]]:
    """Level and index of every shortening that there can be, in their order."""
    steps = [
        (-piece.rank, level, -index)
        for index, piece in enumerate(pieces)
        for level in range(1, len(piece.forms))
    ]
    return [(level, -index) for _, level, index in sorted(steps)]


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
