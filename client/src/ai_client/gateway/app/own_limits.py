"""`x-ratelimit-*` of this host's own admission: what it has of the account's quota, and what of that is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ai_client.contract.options import Limits
from ai_client.gateway.http.asgi import Headers

# Looking costs more than a request may; nobody needs it fresher.
KEPT_S = 0.1


class OwnLimits:
    """The headers, looked up a few times a second. `look` is `AIAPIClient.get_stats`."""

    def __init__(
        self, limits: Limits, *, look: Callable[[], Mapping[str, Any]], clock: Callable[[], float]
    ) -> None:
        self.limits = limits
        self._look = look
        self._clock = clock
        self._looked_s = float("-inf")
        self._headers: Headers = []

    def headers(self) -> Headers:
        """`limit` and `remaining` of requests and of tokens, of those that have a limit."""
        now_s = self._clock()
        if now_s - self._looked_s >= KEPT_S:
            self._looked_s = now_s
            self._headers = _headers(self.limits, self._look())
        return self._headers


def _headers(limits: Limits, now: Mapping[str, Any]) -> Headers:
    found: Headers = []
    for unit, limit, used in (
        ("requests", now.get("limit_requests", limits.requests_per_minute), now["window_requests"]),
        ("tokens", now.get("limit_tokens", limits.tokens_per_minute), now["window_tokens"]),
    ):
        if limit is not None:
            found.append((f"x-ratelimit-limit-{unit}".encode(), str(limit).encode()))
            found.append((f"x-ratelimit-remaining-{unit}".encode(), str(max(0, limit - used)).encode()))
    return found
