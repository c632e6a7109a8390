"""Events of a chat's stream that hold nothing of its answer yet: a role alone, filters, empty texts. Pure."""

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
