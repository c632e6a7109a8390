"""The request headers that callers steer with, and which of the upstream's headers they get back.

| header | value |
|---|---|
| `X-Priority` | 0 (most urgent) to 9; the tenant's own where not given |
| `X-AI-Importance` | `ordinary` or `critical`: which model routing takes |
| `X-AI-Cache` | `default`, `no-store` or `only-if-cached` |
| `X-AI-Deadline` | seconds for the whole request, waiting included |
| `X-AI-Merge` | `true`: may share one upstream call with others |
| `X-AI-Tenant` | the tenant to act for: one's own, or any for an operator |
| `Idempotency-Key` | one key for all attempts |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ai_client.gateway.asgi import Headers
from ai_client.gateway.failures import Failure, invalid
from ai_client.request import CacheMode, Importance, Response

MAX_DEADLINE_S = 86_400.0
# The upstream's rate limits are the account's, of which this host has a share: the gateway tells of that instead.
_RETURNED = tuple(
    (name, name.encode())
    for name in ("content-type", "openai-processing-ms", "retry-after", "retry-after-ms")
)


@dataclass(slots=True)
class Steering:
    """What the headers of one request say; None where they are silent."""

    authorization: bytes = b""
    host: bytes | None = None
    origin: bytes | None = None
    content_type: bytes = b""
    content_length: int | None = None
    priority: int | None = None
    importance: Importance | None = None
    cache_mode: CacheMode = CacheMode.DEFAULT
    deadline_s: float | None = None
    merge: bool = False
    tenant: str | None = None
    idempotency_key: str | None = None

    def passed(self) -> dict[str, str]:
        """Those of the headers that another process of this service must see, but for tenant and priority."""
        values = {
            "x-ai-importance": self.importance,
            "x-ai-cache": self.cache_mode,
            "x-ai-deadline": None if self.deadline_s is None else str(self.deadline_s),
            "x-ai-merge": "true" if self.merge else None,
            "idempotency-key": self.idempotency_key,
        }
        return {name: str(value) for name, value in values.items() if value is not None}


def read(headers: Headers) -> Steering | Failure:
    """Read the headers of a request, in one pass; the first that can't be used becomes a Failure."""
    steering = Steering()
    for name, value in headers:
        take = _TAKERS.get(name)
        if take is None:
            continue
        try:
            take(steering, value)
        except ValueError as exc:
            header = name.decode("latin-1")
            return invalid(f"The header {header} can't be used: {exc}.", param=header, code="invalid_header")
    return steering


def _authorization(steering: Steering, value: bytes) -> None:
    steering.authorization = value


def _host(steering: Steering, value: bytes) -> None:
    if steering.host is not None:
        raise ValueError("it is there twice")
    steering.host = value


def _origin(steering: Steering, value: bytes) -> None:
    steering.origin = value


def _content_type(steering: Steering, value: bytes) -> None:
    steering.content_type = value


def _content_length(steering: Steering, value: bytes) -> None:
    steering.content_length = int(value)


def _priority(steering: Steering, value: bytes) -> None:
    if len(value) != 1 or not value.isdigit():
        raise ValueError("write a digit from 0, the most urgent, to 9")
    steering.priority = int(value)


def _importance(steering: Steering, value: bytes) -> None:
    try:
        steering.importance = Importance(value.decode("latin-1").lower())
    except ValueError:
        raise ValueError("write ordinary or critical") from None


def _cache(steering: Steering, value: bytes) -> None:
    try:
        steering.cache_mode = CacheMode(value.decode("latin-1").lower())
    except ValueError:
        raise ValueError("write default, no-store or only-if-cached") from None


def _deadline(steering: Steering, value: bytes) -> None:
    wanted = f"write seconds, above 0 and up to {MAX_DEADLINE_S:g}"
    try:
        deadline_s = float(value)
    except ValueError:
        raise ValueError(wanted) from None
    if not 0 < deadline_s <= MAX_DEADLINE_S:
        raise ValueError(wanted)
    steering.deadline_s = deadline_s


def _merge(steering: Steering, value: bytes) -> None:
    if value.lower() not in (b"true", b"false"):
        raise ValueError("write true or false")
    steering.merge = value.lower() == b"true"


def _tenant(steering: Steering, value: bytes) -> None:
    steering.tenant = value.decode("ascii")


def _idempotency_key(steering: Steering, value: bytes) -> None:
    text = value.decode("ascii")
    if not text.isprintable() or not 0 < len(text) <= 255:
        raise ValueError("write up to 255 printable characters")
    steering.idempotency_key = text


_TAKERS = {
    b"authorization": _authorization,
    b"host": _host,
    b"origin": _origin,
    b"content-type": _content_type,
    b"content-length": _content_length,
    b"x-priority": _priority,
    b"x-ai-importance": _importance,
    b"x-ai-cache": _cache,
    b"x-ai-deadline": _deadline,
    b"x-ai-merge": _merge,
    b"x-ai-tenant": _tenant,
    b"idempotency-key": _idempotency_key,
}


def returned(headers: Mapping[str, str]) -> Headers:
    """Those of the upstream's headers that callers may use."""
    return [(encoded, headers[name].encode("latin-1")) for name, encoded in _RETURNED if name in headers]


def about(response: Response) -> Headers:
    """What this service did for a whole answer."""
    headers: Headers = [
        (b"x-ai-model", safe(response.model)),
        (b"x-ai-cache", b"hit" if response.cached else b"miss"),
        (b"x-ai-attempts", str(response.attempts).encode()),
    ]
    if response.cost_usd is not None:
        headers.append((b"x-ai-cost-usd", f"{response.cost_usd:.9f}".encode()))
    if response.request_id:
        headers.append((b"x-request-id", safe(response.request_id)))
    return headers


def safe(text: str) -> bytes:
    """A text as a header's value: what can't stand in one becomes `?`."""
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text.encode("ascii", "replace")
