"""How real providers differ from the plain simulator: where they are, how they count, and how their streams look.

Each likeness is from the provider's public reference or from reports of other tools; `docs/how-to/providers.md` says
what each plays. The tokens are always the same ones: what differs is how they are told.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from ai_client.testing.replies import Json, encode

#: Of the input's tokens, so many of a hundred come from a cache, where a provider tells of one.
_CACHED_PERCENT: Final = 50
#: Tokens that a model thinks, where it counts them beside its answer.
THOUGHT_TOKENS: Final = 7

UsageShape = Callable[[Json], Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """One provider. `models` are names that it has; `prefix` is where its API lies, instead of `/v1`."""

    models: tuple[str, ...]
    prefix: str = "/v1"
    key_header: str = "authorization"
    #: The one API that takes a bearer token although `key_header` is another; the others refuse it.
    bearer_for: str = ""
    usage: UsageShape = lambda usage: usage
    #: Where a stream tells its usage: "asked" (a last event, if asked for), "finish" (in the event with the finish
    #: reason, always), "choice" (in its choice), "every" (in every event), "groq" (in `x_groq`).
    usage_in: str = "asked"
    #: A comment before the first event, and an empty event of Azure's.
    comment: bytes = b""
    is_filtered: bool = False
    has_done: bool = True
    line_end: bytes = b"\n"
    error: Callable[[int, Json], object] = lambda status, error: {"error": error}
    limit_headers: bool = True
    has_models_route: bool = True
    #: Whether it tells the tier that answered, beside the usage.
    tells_tier: bool = False
    #: Whether a whole answer is compressed for who takes gzip.
    compresses: bool = False


def _openai(usage: Json) -> Json:
    cached = usage["prompt_tokens"] * _CACHED_PERCENT // 100
    return usage | {
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _deepseek(usage: Json) -> Json:
    hit = usage["prompt_tokens"] * _CACHED_PERCENT // 100
    return usage | {"prompt_cache_hit_tokens": hit, "prompt_cache_miss_tokens": usage["prompt_tokens"] - hit}


def _thinking_beside(usage: Json) -> Json:
    """Thoughts are billed, and only the sum tells of them."""
    return usage | {"total_tokens": usage["total_tokens"] + THOUGHT_TOKENS}


def _xai(usage: Json) -> Json:
    details = {"completion_tokens_details": {"reasoning_tokens": THOUGHT_TOKENS}, "num_sources_used": 0}
    return _thinking_beside(usage) | details


def _moonshot(usage: Json) -> Json:
    return usage | {"cached_tokens": usage["prompt_tokens"] * _CACHED_PERCENT // 100}


def _groq(usage: Json) -> Json:
    return usage | {"queue_time": 0.01, "prompt_time": 0.001, "completion_time": 0.02, "total_time": 0.021}


def _openrouter(usage: Json) -> Json:
    return _openai(usage) | {"cost": 0.00001, "is_byok": False}


def _error_object(status: int, error: Json) -> object:
    """Mistral's and vLLM's: the error itself, which says that it is one."""
    return {
        "object": "error",
        "message": error["message"],
        "type": error["type"],
        "param": None,
        "code": status,
    }


def _google_error(status: int, error: Json) -> object:
    """Gemini's compatible path: a list of one."""
    return [{"error": {"code": status, "message": error["message"], "status": "INVALID_ARGUMENT"}}]


def _azure_error(status: int, error: Json) -> object:
    return {"error": {"code": str(error.get("code") or status), "message": error["message"]}}


def _anthropic_error(status: int, error: Json) -> object:
    kinds = {
        401: "authentication_error",
        404: "not_found_error",
        429: "rate_limit_error",
        529: "overloaded_error",
    }
    kind = kinds.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": error["message"]}}


LIKENESSES: Final[Mapping[str, Likeness]] = MappingProxyType(
    {
        "": Likeness(models=()),
        "openai": Likeness(
            models=("gpt-4.1", "gpt-4.1-mini", "o3"), usage=_openai, tells_tier=True, compresses=True
        ),
        "azure": Likeness(
            models=("my-gpt-4.1",),
            prefix="/openai/v1",
            key_header="api-key",
            usage=_openai,
            is_filtered=True,
            error=_azure_error,
            tells_tier=True,
        ),
        "anthropic": Likeness(
            models=("claude-sonnet-4-5",),
            key_header="x-api-key",
            bearer_for="/chat/completions",
            error=_anthropic_error,
            limit_headers=False,
            compresses=True,
        ),
        "deepseek": Likeness(
            models=("deepseek-chat", "deepseek-reasoner"),
            usage=_deepseek,
            usage_in="finish",
            comment=b": keep-alive\n\n",
            limit_headers=False,
        ),
        "gemini": Likeness(
            models=("gemini-2.5-flash",),
            prefix="/v1beta/openai",
            usage=_thinking_beside,
            usage_in="every",
            error=_google_error,
            limit_headers=False,
        ),
        "mistral": Likeness(
            models=("mistral-large-latest",), usage_in="finish", error=_error_object, limit_headers=False
        ),
        "xai": Likeness(models=("grok-4",), usage=_xai, usage_in="every"),
        "groq": Likeness(
            models=("llama-3.3-70b-versatile",),
            prefix="/openai/v1",
            usage=_groq,
            usage_in="groq",
            tells_tier=True,
        ),
        "moonshot": Likeness(models=("kimi-k2",), usage=_moonshot, usage_in="choice", limit_headers=False),
        "openrouter": Likeness(
            models=("openai/gpt-4.1",),
            prefix="/api/v1",
            usage=_openrouter,
            comment=b": OPENROUTER PROCESSING\n\n",
            limit_headers=False,
        ),
        "bedrock": Likeness(models=("openai.gpt-oss-120b-1:0",), prefix="/openai/v1", limit_headers=False),
        "vertex": Likeness(
            models=("google/gemini-2.5-flash",),
            prefix="/v1/projects/my-project/locations/global/endpoints/openapi",
            usage=_thinking_beside,
            usage_in="finish",
            error=_google_error,
            limit_headers=False,
            has_models_route=False,
        ),
        "vllm": Likeness(
            models=("Qwen/Qwen3-8B",), usage_in="every", error=_error_object, limit_headers=False
        ),
        "llamacpp": Likeness(
            models=("qwen3-8b.gguf",), usage_in="finish", line_end=b"\r\n", limit_headers=False
        ),
        "ollama": Likeness(models=("llama3.2",), limit_headers=False),
        "holysheep": Likeness(
            models=("gpt-4.1", "claude-sonnet-4.5", "gemini-2.5-flash", "deepseek-v3.2"), usage=_openai
        ),
    }
)


def under_v1(target: str, prefix: str) -> str:
    """A target as the plain simulator has it; one that lies elsewhere than the provider's API is none."""
    if prefix == "/v1":
        return target
    return f"/v1{target.removeprefix(prefix)}" if target.startswith(f"{prefix}/") else f"/nowhere{target}"


def _told(likeness: Likeness, usage: Json, body: Mapping[str, Any]) -> Json:
    """The usage as it is told, with the source that is read where xAI is let search."""
    told = likeness.usage(usage)
    return (
        told | {"num_sources_used": 1}
        if "num_sources_used" in told and body.get("search_parameters")
        else told
    )


def _tier(likeness: Likeness, body: Mapping[str, Any]) -> Json:
    """The tier that was asked for: there is always room."""
    asked = body.get("service_tier")
    return {"service_tier": "default" if asked in (None, "auto") else asked} if likeness.tells_tier else {}


def whole_like(likeness: Likeness, answer: Json, body: Mapping[str, Any]) -> Json:
    """A whole answer as the provider writes it to a request of `body`."""
    if isinstance(answer.get("usage"), dict) and "completion_tokens" in answer["usage"]:
        answer = answer | {"usage": _told(likeness, answer["usage"], body)} | _tier(likeness, body)
    if likeness.is_filtered and "choices" in answer:
        answer = answer | {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]}
    return answer


def stream_like(likeness: Likeness, events: list[bytes], body: Mapping[str, Any]) -> list[bytes]:
    """A chat stream as the provider writes it, from one that has its usage event, if any, last."""
    if likeness is LIKENESSES[""]:
        return events
    parsed = [json.loads(event[5:]) for event in events if not event.startswith(b"data: [DONE]")]
    usage = parsed.pop()["usage"] if parsed and not parsed[-1]["choices"] else None
    told = _told(likeness, usage, body) if usage is not None else None
    parsed = [event | _tier(likeness, body) for event in parsed]
    if told is not None:
        parsed = _with_usage(likeness.usage_in, parsed, told)
    if likeness.is_filtered:
        parsed.insert(0, parsed[0] | {"choices": [], "model": "", "prompt_filter_results": []})
    texts = [b"data: " + encode(event) + b"\n\n" for event in parsed]
    if likeness.has_done:
        texts.append(b"data: [DONE]\n\n")
    texts[0] = likeness.comment + texts[0]
    return [text.replace(b"\n", likeness.line_end) for text in texts]


def _with_usage(place: str, events: list[Json], usage: Json) -> list[Json]:
    last = events[-1]
    if place == "finish":
        return [*events[:-1], last | {"usage": usage}]
    if place == "every":
        return [event | {"usage": usage} for event in events]
    if place == "choice":
        return [*events[:-1], last | {"choices": [last["choices"][0] | {"usage": usage}]}]
    if place == "groq":
        return [*events[:-1], last | {"x_groq": {"id": "req_simulated", "usage": usage}}]
    return [*events, {**last, "choices": [], "usage": usage}]
