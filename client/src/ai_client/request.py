"""What goes in and what comes out: pure data, shared by every part of the package."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeAlias

from msgspec import Struct, field

from ai_client.json_text import read_json

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

_NO_TAGS: Mapping[str, str] = MappingProxyType({})


def _no_tags() -> Mapping[str, str]:
    return _NO_TAGS


class CacheMode(StrEnum):
    """What one request wants of the response cache."""

    DEFAULT = "default"
    NO_STORE = "no-store"
    ONLY_IF_CACHED = "only-if-cached"


class Importance(StrEnum):
    """What routing goes by, where the caller declares it."""

    ORDINARY = "ordinary"
    CRITICAL = "critical"


class Usage(Struct, frozen=True):
    """Tokens as the upstream counted them. `input_tokens` includes `cached_input_tokens`."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class Request(Struct, frozen=True, kw_only=True):
    """One call of the API, as the caller means it. `msgspec.structs.replace` makes a changed copy."""

    #: "chat/completions", "completions", "embeddings" or "models".
    endpoint: str
    #: As the caller sent it; unknown fields pass through untouched.
    body: Mapping[str, Any]
    stream: bool = False
    #: 0 is the most urgent, 9 the least.
    priority: int = 5
    tenant: str = "default"
    importance: Importance | None = None
    cache_mode: CacheMode = CacheMode.DEFAULT
    #: Seconds from now for the whole request: waiting, retries and the answer.
    deadline_s: float | None = None
    #: One key for all attempts; made up where the caller gives none.
    idempotency_key: str | None = None
    #: May be merged with other requests into one upstream call (chat; embeddings always may).
    merge: bool = False
    #: May be sent again although it may have been executed.
    resend_unsafe: bool = False
    cost_tags: Mapping[str, str] = field(default_factory=_no_tags)

    @property
    def model(self) -> str:
        """The model that the body names, or "" (the `models` endpoint has none)."""
        model = self.body.get("model", "")
        return model if isinstance(model, str) else ""


@dataclass(slots=True, kw_only=True)
class Response:
    """A whole answer, with what it took to get it."""

    status: int
    #: Lower-case names.
    headers: Mapping[str, str]
    #: As the upstream sent it.
    body: bytes
    #: The model that answered: routing or fallback may have changed it.
    model: str
    cached: bool = False
    attempts: int = 1
    usage: Usage | None = None
    cost_usd: float | None = None
    request_id: str = ""
    #: The body as it was parsed on the way, to spare a second time. A copy with another body has none.
    parsed: Any = dataclasses.field(default=None, init=False, repr=False, compare=False)

    def json(self) -> Any:
        """The body, parsed. Of one response it is the same object each time."""
        if self.parsed is None:
            self.parsed = read_json(self.body)
        return self.parsed


def usage_from_json(value: object) -> Usage | None:
    """The `usage` object of an OpenAI answer, or None where there is none or it makes no sense."""
    if not isinstance(value, dict):
        return None
    input_tokens = value.get("prompt_tokens", value.get("input_tokens"))
    output_tokens = value.get("completion_tokens", value.get("output_tokens", 0))
    if not isinstance(input_tokens, int) or not isinstance(output_tokens, int):
        return None
    details = value.get("prompt_tokens_details")
    cached = details.get("cached_tokens", 0) if isinstance(details, dict) else 0
    cached_tokens = cached if isinstance(cached, int) else 0
    if min(input_tokens, output_tokens, cached_tokens) < 0:
        return None
    return Usage(input_tokens, output_tokens, min(cached_tokens, input_tokens))
