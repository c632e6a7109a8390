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
from functools import lru_cache

from msgspec import Struct

from ai_client.contract.apis import Family, api_of
from ai_client.contract.request import CacheMode, Importance, Response
from ai_client.gateway.app.failures import Failure, invalid
from ai_client.gateway.http.asgi import Headers

MAX_DEADLINE_S = 86_400.0
# The upstream's rate limits are the account's, of which this host has a share: the gateway tells of that instead.
_RETURNED = tuple(
    (name, name.encode())
    for name in ("content-type", "content-disposition", "request-id", "retry-after", "retry-after-ms")
)
# Whatever providers define under names of their own passes, up and down; what tells of the account's limits does not.
_PROVIDERS_OWN = (b"anthropic-", b"openai-")
_PROVIDERS_DOWN = ("anthropic-", "openai-")
_ACCOUNTS_LIMITS = "anthropic-ratelimit-"
_TRACE = frozenset({b"traceparent", b"tracestate"})
MOST_PROVIDER_HEADERS = 32


class Steering(Struct):
    """What the headers of one request say; None where they are silent."""

    authorization: bytes = b""
    host: bytes | None = None
    origin: bytes | None = None
    content_type: bytes = b""
    content_encoding: bytes = b""
    content_length: int | None = None
    priority: int | None = None
    importance: Importance | None = None
    cache_mode: CacheMode = CacheMode.DEFAULT
    deadline_s: float | None = None
    merge: bool = False
    tenant: str | None = None
    idempotency_key: str | None = None
    #: Those of the provider's own, for the upstream.
    provider_headers: dict[str, str] | None = None

    def passed(self) -> dict[str, str]:
        """Those of the headers that another process of this service must see, but for tenant and priority."""
        values = {
            "x-ai-importance": self.importance,
            "x-ai-cache": self.cache_mode,
            "x-ai-deadline": None if self.deadline_s is None else str(self.deadline_s),
            "x-ai-merge": "true" if self.merge else None,
            "idempotency-key": self.idempotency_key,
        }
        own = {name: str(value) for name, value in values.items() if value is not None}
        return own | (self.provider_headers or {})


def read(headers: Headers) -> Steering | Failure:
    """Read the headers of a request, in one pass; the first that can't be used becomes a Failure."""
    steering = Steering()
    for name, value in headers:
        take = _TAKERS.get(name)
        if take is None:
            if name.startswith(_PROVIDERS_OWN) or name in _TRACE:
                _provider_header(steering, name, value)
            continue
        try:
            take(steering, value)
        except ValueError as exc:
            header = name.decode("latin-1")
            return invalid(f"The header {header} can't be used: {exc}.", param=header, code="invalid_header")
    return steering


def _provider_header(steering: Steering, name: bytes, value: bytes) -> None:
    known = steering.provider_headers
    if known is None:
        known = steering.provider_headers = {}
    if len(known) < MOST_PROVIDER_HEADERS:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        # `anthropic-beta` may come in several lines, which mean the same as one.
        known[key] = f"{known[key]}, {text}" if key in known else text


def _api_key(steering: Steering, value: bytes) -> None:
    """Where Anthropic's programs have their key; a bearer token beside it wins."""
    if not steering.authorization:
        steering.authorization = b"Bearer " + value


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


def _content_encoding(steering: Steering, value: bytes) -> None:
    """Several lines mean the same as one."""
    known = steering.content_encoding
    steering.content_encoding = known + b"," + value if known else value


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
    if (
        not 0 < deadline_s <= MAX_DEADLINE_S or b"_" in value
    ):  # which is Python's, and no number of anybody else's
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
    b"x-api-key": _api_key,
    b"host": _host,
    b"origin": _origin,
    b"content-type": _content_type,
    b"content-encoding": _content_encoding,
    b"content-length": _content_length,
    b"x-priority": _priority,
    b"x-ai-importance": _importance,
    b"x-ai-cache": _cache,
    b"x-ai-deadline": _deadline,
    b"x-ai-merge": _merge,
    b"x-ai-tenant": _tenant,
    b"idempotency-key": _idempotency_key,
}


EVENTS = "text/event-stream"
# nginx in front would hold events back until its buffers are full.
OF_STREAMS: Headers = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


def kind_of_stream(endpoint: str, headers: Mapping[str, str]) -> tuple[bool, str]:
    """Whether it is one of events, and its content type: of answers in words it is, whatever its upstream calls it."""
    kind = headers.get("content-type", "")
    if kind.lower().startswith(EVENTS):
        return True, kind
    is_in_words = api_of(endpoint).family in (Family.OPENAI, Family.RESPONSES, Family.ANTHROPIC)
    return (True, EVENTS) if is_in_words else (False, kind or "application/octet-stream")


def returned(headers: Mapping[str, str]) -> Headers:
    """Those of the upstream's headers that callers may use."""
    return [(encoded, headers[name].encode("latin-1")) for name, encoded in _names_returned(tuple(headers))]


@lru_cache(maxsize=256)
def _names_returned(names: tuple[str, ...]) -> list[tuple[str, bytes]]:
    """An upstream's answers mostly have the same names."""
    return [(name, encoded) for name, encoded in _RETURNED if name in names] + [
        (name, name.encode("latin-1"))
        for name in names
        if name.startswith(_PROVIDERS_DOWN) and not name.startswith(_ACCOUNTS_LIMITS)
    ]


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
