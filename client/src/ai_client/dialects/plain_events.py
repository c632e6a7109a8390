"""Events of a chat's stream as most are: read by a typed decoder that skips their texts, a third of the work."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from ai_client.dialects.verdict import BROKEN_OFF

ABSENT: Final = Raw(b"")

# What may tell of an error is no part of an event that is read plainly: where it holds anything, decoding fails.


# Some write these, or nothing at all, until there is a reason.
_NO_REASONS: Final = frozenset(("", "null", "none"))


def is_reason(told: object) -> bool:
    """Whether a choice says by this why it finished."""
    return bool(told) and (not isinstance(told, str) or told.lower() not in _NO_REASONS)


class PlainChoice(Struct):
    index: int = 0
    finish_reason: str | None = None
    delta: Raw = ABSENT
    text: Raw = ABSENT
    error: None = None
    usage: None = None
    native_finish_reason: str | None = None


class PlainChunk(Struct):
    choices: list[PlainChoice] = []
    usage: dict[str, Any] | None = None
    service_tier: str | None = None
    object: str = ""
    error: None = None
    base_resp: None = None
    x_groq: None = None
    type: None = None


decode_chunk = msgspec.json.Decoder(PlainChunk).decode
decode_chunks = msgspec.json.Decoder(list[PlainChunk]).decode


def are_plain(chunks: list[PlainChunk]) -> bool:
    """Whether each event is a part of an answer and tells of nothing else."""
    for chunk in chunks:
        if not chunk.choices or chunk.object == "error":
            return False
        for choice in chunk.choices:
            if choice.delta is ABSENT and choice.text is ABSENT:
                return False  # its text may stand elsewhere: Azure's `messages`
            if choice.finish_reason and (
                choice.finish_reason.lower() in BROKEN_OFF or choice.native_finish_reason in BROKEN_OFF
            ):
                return False
    return True
