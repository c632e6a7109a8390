"""Seals what of a batch lies in the engine, which has none of the keys (docs/adr/0034).

A batch has a random key of its own, which seals its lines and results. It lies in the engine sealed with keys that are
derived from the provider's: hosts of an account have that one anyway, and the engine never does. Each seal binds what
it is about, so that nothing can be put in another's place.

Sources: RFC 5869 (HKDF), draft-irtf-cfrg-xchacha (XChaCha20-Poly1305: any number of random nonces).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
)
from nacl.exceptions import CryptoError

from ai_client.settings import KeyPair

_NONCE_BYTES = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
_KEY_BYTES = 32
_ABOUT = b"ai-client shared batch 1: "


class SealError(Exception):
    """Something can't be unsealed; the text names it, the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class HostKey:
    """A key that hosts derive; `name` tells it from others, and nothing of it."""

    name: str
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, provider_key: str) -> HostKey:
        """The one that belongs to a provider's key."""
        material = provider_key.encode()
        return cls(_derived(material, b"name", 8).hex(), _derived(material, b"key", _KEY_BYTES))


def host_keys(pair: KeyPair) -> tuple[HostKey, ...]:
    """The key in use first, then the one that follows it."""
    keys = [pair.current] if pair.following is None else [pair.current, pair.following]
    return tuple(HostKey.of(key.secret) for key in keys)


def _derived(material: bytes, purpose: bytes, length: int) -> bytes:
    """HKDF-SHA256 without a salt, of at most one block."""
    extracted = hmac.digest(bytes(hashlib.sha256().digest_size), material, "sha256")
    return hmac.digest(extracted, _ABOUT + purpose + b"\x01", "sha256")[:length]


@dataclass(frozen=True, slots=True)
class BatchSeal:
    """Seals and unseals what belongs to one batch."""

    batch: str
    secret: bytes = field(repr=False)

    @classmethod
    def new(cls, batch: str) -> BatchSeal:
        """With a key that nobody has yet."""
        return cls(batch, secrets.token_bytes(_KEY_BYTES))

    @classmethod
    def from_keys(cls, batch: str, sealed: Mapping[str, bytes], keys: Iterable[HostKey]) -> BatchSeal:
        """With the batch's key, which lies in the engine. Raises SealError where no key of this host unseals it."""
        for key in keys:
            if key.name in sealed:
                return cls(batch, _opened(sealed[key.name], key.secret, _bound(batch, "key")))
        reason = "this host has none of the keys that it was sealed with"
        remedy = "give it the provider's key that the batch was submitted with, or the one that followed it"
        raise SealError(f"the batch can't be unsealed: {reason}; {remedy}")

    def for_keys(self, keys: Iterable[HostKey]) -> dict[str, bytes]:
        """The batch's key, sealed with each of these."""
        about = _bound(self.batch, "key")
        return {key.name: _sealed(self.secret, key.secret, about) for key in keys}

    def seal(self, data: bytes, about: str) -> bytes:
        """Compressed and sealed; `about` must be told to unseal it."""
        return _sealed(zlib.compress(data, 1), self.secret, _bound(self.batch, about))

    def unseal(self, sealed: bytes, about: str) -> bytes:
        """What was sealed. Raises SealError."""
        return zlib.decompress(_opened(sealed, self.secret, _bound(self.batch, about)))


def _bound(batch: str, about: str) -> bytes:
    return f"{batch} {about}".encode()


def _sealed(data: bytes, key: bytes, about: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(data, about, nonce, key)


def _opened(sealed: bytes, key: bytes, about: bytes) -> bytes:
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(
            sealed[_NONCE_BYTES:], about, sealed[:_NONCE_BYTES], key
        )
    except CryptoError as exc:
        remedy = "discard the batch and submit it again"
        raise SealError(
            f"what the engine has of the batch was changed on its way or there; {remedy}"
        ) from exc
