"""Answers to a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """The remedy for a word that is none of the known ones: the nearest of them in any case, or all."""
    names = sorted(known)
    folded = {name.casefold(): name for name in reversed(names)}
    near = difflib.get_close_matches(word, names, n=1) or [
        folded[name] for name in difflib.get_close_matches(word.casefold(), folded, n=1)
    ]
    return f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(names)}"
