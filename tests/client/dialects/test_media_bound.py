"""Bounds of pictures and sound hold whatever a caller writes, and what is passed through has none."""

from __future__ import annotations

from typing import Any

import pytest

from ai_client.dialects.upper_bound import UpperBound, upper_bound

# What the simulator and OpenAI's page bill for a picture at most.
DEAREST_PICTURE = 6_208


def bound(endpoint: str, body: dict[str, Any], *, body_bytes: int = 1_000) -> UpperBound:
    """Of a model without facts."""
    return upper_bound(endpoint, body, model="m", body_bytes=body_bytes, default_output=1_024)


@pytest.mark.parametrize("count", [3, 3.0, "3", "3.0", 2.5])
def test_pictures_count_however_their_number_is_written(count: object) -> None:
    """Text, float or whole: three are three."""
    found = bound("images/generations", {"prompt": "a cat", "n": count})
    assert found.usage.output_tokens >= 3 * DEAREST_PICTURE
    assert found.usage.images == 3
    assert found.output_to_send is None


def test_edited_pictures_are_read_too() -> None:
    """Of a form only the sum of their bytes is known, so the most that one request takes counts."""
    assert bound("images/edits", {"prompt": "x", "image": 40}).usage.input_tokens >= 16 * DEAREST_PICTURE


def test_sound_is_bounded_by_its_bytes_and_speech_by_its_text() -> None:
    """In both directions."""
    assert bound("audio/transcriptions", {"file": 5_000}, body_bytes=5_200).usage.input_tokens == 5_200
    spoken = bound("audio/speech", {"input": "ä" * 100}).usage
    assert (spoken.input_tokens, spoken.output_tokens, spoken.characters) == (200, 4_000, 200)
    assert bound("audio/speech", {"input": ["ä" * 100]}, body_bytes=250).usage.characters == 250


def test_what_is_passed_through_has_no_bound() -> None:
    """A hard budget refuses it, with the reason; nothing is written into its body."""
    found = bound("pass_through", {"model": "m"})
    assert found.unbounded is not None
    assert "passed through" in found.unbounded.reason
    assert found.output_to_send is None
