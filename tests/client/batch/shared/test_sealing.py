"""What lies in the engine is sealed: it opens with the provider's key of then or of now, and only in its own place."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ai_client.batch.shared.sealing import BatchSeal, HostKey, SealError, host_keys
from ai_client.settings import KeyPair, LoadedKey

_KEY, _NEXT = HostKey.of("hs_test_key_1"), HostKey.of("hs_test_key_2")


def test_what_was_sealed_is_unsealed_by_another_host_with_the_same_key() -> None:
    seal = BatchSeal.new("b")
    sealed = seal.seal(b"a prompt", "line 1")
    assert b"prompt" not in sealed
    other = BatchSeal.from_keys("b", seal.for_keys([_KEY]), [HostKey.of("hs_test_key_1")])
    assert other.unseal(sealed, "line 1") == b"a prompt"


def test_two_seals_of_one_text_differ() -> None:
    """Whoever sees both learns nothing."""
    seal = BatchSeal.new("b")
    assert seal.seal(b"the same", "line 1") != seal.seal(b"the same", "line 1")


@pytest.mark.parametrize(("batch", "about"), [("b", "line 2"), ("c", "line 1")])
def test_nothing_can_be_put_in_another_place(batch: str, about: str) -> None:
    """A result of another line or batch, given by the engine, is found out."""
    seal = BatchSeal.new("b")
    with pytest.raises(SealError, match="was changed"):
        BatchSeal(batch, seal.secret).unseal(seal.seal(b"text", "line 1"), about)


def test_a_changed_byte_is_found_out() -> None:
    seal = BatchSeal.new("b")
    sealed = bytearray(seal.seal(b"text", "line 1"))
    sealed[-1] ^= 1
    with pytest.raises(SealError, match="was changed"):
        seal.unseal(bytes(sealed), "line 1")


def test_a_key_that_it_was_not_sealed_with_is_said_to_be_missing() -> None:
    sealed = BatchSeal.new("b").for_keys([_KEY])
    with pytest.raises(SealError, match="none of the keys"):
        BatchSeal.from_keys("b", sealed, [_NEXT])


def test_the_key_in_use_and_the_following_one_both_seal() -> None:
    pair = KeyPair(LoadedKey("hs_test_key_1", "file"), LoadedKey("hs_test_key_2", "file"))
    assert host_keys(pair) == (_KEY, _NEXT)


def test_a_hosts_key_shows_nothing_of_the_providers() -> None:
    """Nor does its name, which lies in the engine."""
    assert "hs_test" not in repr(_KEY) + _KEY.name
    assert len({_KEY.name, _KEY.secret.hex()[:16], _NEXT.name}) == 3
    assert repr(_KEY.secret) not in repr(_KEY)
    assert repr(BatchSeal("b", b"secret")) == "BatchSeal(batch='b')"


def test_keys_are_derived_as_rfc_5869_says() -> None:
    """As another library has it: extract without a salt, expand by one block."""
    assert HostKey.of("hs_test_key_1") == HostKey.of("hs_test_key_1")
    derive = HKDF(SHA256(), 32, None, b"ai-client shared batch 1: key").derive
    assert derive(b"hs_test_key_1") == _KEY.secret
