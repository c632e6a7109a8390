"""API keys: what the client signs with, and what happens when one is rotated.

A key is shown only as its prefix and a fingerprint; its text leaves this module through `ApiKey.reveal`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

from ai_client.errors import ConfigurationError

_PRINTABLE = re.compile(r"[\x21-\x7e]{8,}")
_PREFIX = re.compile(r"(hs_live_|hs_test_|sk-)")


class ApiKey:
    """One key. Its repr and str are masked."""

    __slots__ = ("_text", "authorization", "fingerprint")

    def __init__(self, text: str) -> None:
        stripped = text.strip()
        if not _PRINTABLE.fullmatch(stripped):
            raise ConfigurationError(
                "api_key",
                "is empty, too short or holds spaces or control characters",
                remedy="Give the key as the provider shows it, for example hs_live_….",
                key="api_key",
            )
        self._text = stripped
        #: The first 12 hex digits of its SHA-256: enough to tell keys apart, useless to sign with.
        self.fingerprint = hashlib.sha256(stripped.encode()).hexdigest()[:12]
        self.authorization = f"Bearer {stripped}"

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        prefix = _PREFIX.match(self._text)
        return f"ApiKey({prefix.group() if prefix else ''}…, {self.fingerprint})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ApiKey) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class KeyProvider:
    """The key in use and, while two overlap, the one that follows it.

    `reload` reads the key's source again (the key file, say) and is asked when a key was refused: during a
    rotation the upstream may refuse the old key before this process was told of the new one.
    """

    def __init__(
        self,
        current: str | ApiKey,
        *,
        following: str | ApiKey | None = None,
        reload: Callable[[], str | None] | None = None,
    ) -> None:
        self._current = _as_key(current)
        self._following = None if following is None else _as_key(following)
        self._reload = reload

    @property
    def current(self) -> ApiKey:
        return self._current

    @property
    def following(self) -> ApiKey | None:
        return self._following

    def named(self, fingerprint: str) -> ApiKey:
        """The key of that fingerprint, as long as it is known; else the current one."""
        following = self._following
        if following is not None and following.fingerprint == fingerprint:
            return following
        return self._current

    def rotate(self, current: str | ApiKey, *, following: str | ApiKey | None = None) -> None:
        """From the next attempt on, `current` signs. Attempts under way keep what they were signed with."""
        self._current = _as_key(current)
        self._following = None if following is None else _as_key(following)

    def after_refusal(self, refused: ApiKey) -> ApiKey | None:
        """Another key to try once in place of `refused`, or None where there is none."""
        if self._current == refused and self._reload is not None:
            fresh = self._reload()
            if fresh is not None and _as_key(fresh) != refused:
                self.rotate(fresh)
        if self._current == refused and self._following is not None:
            self.rotate(self._following)
        return None if self._current == refused else self._current

    def __repr__(self) -> str:
        return f"KeyProvider({self._current!r}, following={self._following!r})"


def _as_key(key: str | ApiKey) -> ApiKey:
    return key if isinstance(key, ApiKey) else ApiKey(key)
