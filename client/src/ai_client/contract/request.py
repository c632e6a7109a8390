"""What goes in and what comes out: pure data, shared by every part of the package."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeAlias

from msgspec import Struct, field

from ai_client.platform.json_text import read_json

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

#: Of a request that names no place: its account may have one, and only the answer tells.
UNTOLD_REGION = "untold"

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
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
    """Tokens as the upstream counted them.

    `input_tokens` includes `cached_input_tokens` (read from its cache) and `cache_write_tokens`, which together are
    at most as many, and `audio_input_tokens`; `output_tokens` includes `reasoning_tokens` and `audio_output_tokens`.
    `long_cache_write_tokens` are those of the written that are kept for an hour. `images`, `searches`, `seconds` of
    sound and `characters` that are read out are billed each. Tokens of pictures are a part of the input and of the
    output, as those of sound are.
    """

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    images: int = 0
    searches: int = 0
    #: The service tier that answered ("flex", "priority" …), where the upstream tells one.
    tier: str = ""
    long_cache_write_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    #: What the upstream says that the call cost, in nano-dollars; None where it says nothing.
    told_nusd: int | None = None
    image_input_tokens: int = 0
    image_output_tokens: int = 0
    #: Of the cached ones.
    cached_image_tokens: int = 0
    seconds: int = 0
    #: Where it was answered, if that was not left to the provider: a place costs more than anywhere.
    region: str = ""
    characters: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class Passage(Struct, frozen=True, kw_only=True):
    """How a request goes out where it is no JSON that is posted to its endpoint."""

    method: str = "POST"
    #: Under the upstream's base URL, with its query; "" for the endpoint.
    path: str = ""
    #: The body as the caller sent it, of a form for example; None for the request's own `body` as JSON.
    content: bytes | None = None
    content_type: str = "application/json"
    #: Whether the answer may be something else than a JSON object: a file, speech, an empty text.
    is_raw: bool = False
    #: What was stored before and is asked for now: `resp_…`, `file-…`. It lies where it was made.
    stored_id: str = ""


class Request(Struct, frozen=True, kw_only=True):
    """One call of the API, as the caller means it. `msgspec.structs.replace` makes a changed copy."""

    #: One of `contract.apis`, such as "chat/completions", "responses" or "models".
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
    #: Headers of the provider's own (`anthropic-beta`, `OpenAI-Project`, `traceparent`), passed on as they are.
    headers: Mapping[str, str] = field(default_factory=_no_tags)
    #: None for JSON that is posted to the endpoint.
    passage: Passage | None = None
    #: Called each time the request is given leave to go upstream, alone or as a part of a merged one.
    on_admitted: Callable[[], None] | None = None

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
