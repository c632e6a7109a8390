"""The most that pictures and sound can make a provider bill. Pure.

Pictures are bounded by the dearest that is known, sound by its bytes: neither depends on what a caller writes beside
them. What comes back without a usage (speech, plain transcripts) is booked by these bounds, but for speech that is
billed by its characters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ai_client.contract.request import Usage

# gpt-image-1 at high quality, 1024 x 1536, is 6,208 tokens; each partial picture of a stream 100 more.
_PICTURE_TOKENS: Final = 8_192
_PARTIAL_TOKENS: Final = 100
# A picture that is edited, at high fidelity, and the most of them that one request takes.
_EDITED_TOKENS: Final = 8_192
_MOST_EDITED: Final = 16
# Speech at a quarter of its pace: a character in a second, twenty tokens of sound.
_SPOKEN_TOKENS_PER_BYTE: Final = 20
# No sound that is sent for its speech has less than two kilobits a second, nor is it longer than a day.
_BYTES_PER_SECOND: Final = 250
_MOST_SECONDS: Final = 86_400
# A transcript has no more tokens than its sound has bytes, nor more than four hours of speech.
_MOST_TRANSCRIBED: Final = 100_000


def media_bound(
    endpoint: str, body: Mapping[str, Any], *, body_bytes: int, number: Callable[[object], int | None]
) -> tuple[Usage, int]:
    """What an `images/…` or `audio/…` request takes at most, and how many bytes of it are text.

    `number` reads a count however it is written.
    """
    texts = [value for value in body.values() if isinstance(value, str)]
    text_bytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
    if endpoint.startswith("images/"):
        count = max(1, number(body.get("n")) or 1)
        partial = number(body.get("partial_images")) or 0
        read = text_bytes + (0 if endpoint == "images/generations" else _MOST_EDITED * _EDITED_TOKENS)
        return Usage(read, count * _PICTURE_TOKENS + partial * _PARTIAL_TOKENS, images=count), text_bytes
    if endpoint == "audio/speech":
        if any(isinstance(value, list | Mapping) for value in body.values()):
            text_bytes = max(text_bytes, body_bytes)
        spoken = text_bytes * _SPOKEN_TOKENS_PER_BYTE
        # Whoever counts a character twice (Azure's and MiniMax's Chinese) finds no more of them than bytes.
        text = body.get("input")
        characters = len(text.encode("utf-8", "replace")) if isinstance(text, str) else text_bytes
        return Usage(text_bytes, spoken, audio_output_tokens=spoken, characters=characters), text_bytes
    seconds = min(-(-body_bytes // _BYTES_PER_SECOND), _MOST_SECONDS)
    written = min(body_bytes, _MOST_TRANSCRIBED)
    return Usage(body_bytes, written, audio_input_tokens=body_bytes, seconds=seconds), text_bytes


def characters_of(endpoint: str, body: Mapping[str, Any]) -> int:
    """How many characters are to be read out; 0 where none are, or nobody knows."""
    text = body.get("input") if endpoint == "audio/speech" else None
    return len(text) if isinstance(text, str) else 0
