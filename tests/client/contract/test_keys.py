"""Keys: never shown, and rotated under running requests."""

from __future__ import annotations

import pytest

from ai_client.contract.keys import ApiKey, KeyProvider
from ai_client.errors import ConfigurationError

OLD, NEW = "hs_test_old_0123456789", "hs_test_new_0123456789"


def test_a_key_is_not_shown() -> None:
    """Only its prefix and fingerprint."""
    key = ApiKey(OLD)
    for shown in (repr(key), str(key), f"{key}", repr(KeyProvider(key, following=NEW))):
        assert "old_0123456789" not in shown
        assert "hs_test_" in shown
    assert key.reveal() == OLD
    assert len(key.fingerprint) == 12


@pytest.mark.parametrize(
    "text", ["", "   ", "tiny_7", "hs_test_with space in", "hs_test_line\nbreak", "hs_test_\x00\x01\x02"]
)
def test_what_cannot_be_a_key_is_refused_without_showing_it(text: str) -> None:
    """A line break would be a header of the attacker's choice."""
    with pytest.raises(ConfigurationError) as caught:
        ApiKey(text)
    assert not text.strip() or text.strip() not in str(caught.value)


def test_blank_space_around_a_key_is_taken_off() -> None:
    """Key files end with a line break."""
    assert ApiKey(f" {OLD}\n").authorization == f"Bearer {OLD}"


def test_after_a_refusal_the_rotated_key_is_tried() -> None:
    """The refused one was signed with before the rotation."""
    keys = KeyProvider(OLD)
    refused = keys.current
    assert keys.after_refusal(refused) is None
    keys.rotate(NEW)
    assert keys.after_refusal(refused) == ApiKey(NEW)
    assert keys.current == ApiKey(NEW)


def test_after_a_refusal_the_following_key_takes_over() -> None:
    """While two overlap, the upstream may drop the old one first."""
    keys = KeyProvider(OLD, following=NEW)
    assert keys.after_refusal(ApiKey(OLD)) == ApiKey(NEW)
    assert keys.following is None
    assert keys.after_refusal(ApiKey(NEW)) is None


def test_after_a_refusal_the_source_is_read_again() -> None:
    """The file may be newer than what this process was told."""
    answers = [OLD, None, NEW]
    keys = KeyProvider(OLD, reload=lambda: answers.pop(0))
    assert keys.after_refusal(ApiKey(OLD)) is None
    assert keys.after_refusal(ApiKey(OLD)) is None
    assert keys.after_refusal(ApiKey(OLD)) == ApiKey(NEW)
