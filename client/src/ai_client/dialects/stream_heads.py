"""Heads of streams, which hold nothing of an answer yet, and wait for what comes behind them. Pure.

Of a chat they are a role alone, filters and empty texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# Members of a choice beside what was written, of which none is a part of it.
_BESIDE: Final = frozenset(
    (
        "index",
        "delta",
        "logprobs",
        "matched_stop",
        "content_filter_results",
        "content_filter_offsets",
        "usage",
    )
)


def is_head(value: Mapping[str, Any]) -> bool:
    """Whether an event holds nothing of an answer, nor its end: what comes behind it may still fail as a whole."""
    if value.get("type") == "ping":
        return True
    choices = value.get("choices")
    if not isinstance(choices, list) or value.get("type") is not None:
        return False
    return all(isinstance(choice, dict) and _is_empty(choice) for choice in choices)


def _is_empty(choice: Mapping[str, Any]) -> bool:
    delta = choice.get("delta")
    if delta and (not isinstance(delta, dict) or any(delta[name] for name in delta if name != "role")):
        return False
    return not any(choice[name] for name in choice if name not in _BESIDE)


class HeldHeads:
    """What a reader of a stream keeps back at its begin. `has_begun`: a part of the answer came."""

    __slots__ = ("_held", "has_begun")

    #: Heads, while nothing else came; None from then on.
    _held: list[bytes] | None
    has_begun: bool

    @property
    def is_holding(self) -> bool:
        """Whether heads are kept back."""
        return bool(self._held)

    def let_go(self) -> bytes:
        """The heads that are kept back: from now on the answer has begun."""
        held, self._held = self._held or [], None
        self.has_begun = True
        return b"".join(held)
