"""The one reader of what an upstream says it counted, whoever it is. Pure, and never raises.

- OpenAI, Azure, Mistral, vLLM: `prompt_tokens`, with `cached_tokens` and `cache_write_tokens` of its details inside;
  `completion_tokens`, with reasoning inside. OpenAI's responses: `input_tokens`, `output_tokens`, and the same.
- xAI, Gemini's compatible endpoint: reasoning beside `completion_tokens`; only `total_tokens` tells.
- DeepSeek: `prompt_cache_hit_tokens` and `prompt_cache_miss_tokens`, together the prompt.
- Moonshot: `cached_tokens` beside `prompt_tokens`.
- Anthropic: `input_tokens`, with `cache_read_input_tokens` and `cache_creation_input_tokens` on top.
- Bedrock's own: `inputTokens`, `outputTokens`, with `cacheReadInputTokens` and `cacheWriteInputTokens` on top.
- Gemini's own: `promptTokenCount`, `candidatesTokenCount`, `thoughtsTokenCount`, `cachedContentTokenCount`; what of
  them is pictures or sound, in lists by `modality`.
- Cohere, and servers that rank as it does: `billed_units` and `tokens`, each with the counts.
- Transcripts: `seconds`, alone or beside tokens.

Numbers come as integers, floats, text or null. A count that no model can reach, or below zero, makes the whole
worthless, as does a prompt of no tokens: whoever reserved money then books what the call may have cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from msgspec import structs

from ai_client.contract.request import Usage
from ai_client.dialects.numbers import number_of
from ai_client.dialects.told_cost import told_nusd

# A hundred times the largest context window that is sold.
_MOST_TOKENS: Final = 1_000_000_000
_INPUT: Final = ("prompt_tokens", "input_tokens", "promptTokenCount", "inputTokens", "prompt_eval_count")
_OUTPUT: Final = ("completion_tokens", "output_tokens", "candidatesTokenCount", "outputTokens", "eval_count")
_TOTAL: Final = ("total_tokens", "totalTokenCount", "totalTokens")
_CACHED: Final = ("cached_tokens", "prompt_cache_hit_tokens", "cachedContentTokenCount", "num_cached_tokens")
_WRITTEN: Final = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
_ON_TOP_READ: Final = ("cache_read_input_tokens", "cacheReadInputTokens")
_ON_TOP_WRITTEN: Final = ("cache_creation_input_tokens", "cacheWriteInputTokens")
# Gemini's, of what its own tools put into the prompt; the prompt in two kinds, where nothing tells the sum.
_TOOL_INPUT: Final = "toolUsePromptTokenCount"
_HIT_AND_MISS: Final = ("prompt_cache_hit_tokens", "prompt_cache_miss_tokens")
_COUNTS: Final = frozenset((*_INPUT, *_OUTPUT, *_TOTAL, *_HIT_AND_MISS, *_ON_TOP_READ, *_ON_TOP_WRITTEN))
_INPUT_DETAILS: Final = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OUTPUT_DETAILS: Final = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_KINDS: Final = ("audio_tokens", "image_tokens")
_SECONDS: Final = ("seconds", "prompt_audio_seconds")
# Anthropic's words for anywhere, and for models that know no places.
_ANYWHERE: Final = frozenset(("", "global", "not_available"))
# xAI's, of what its own tools did.
_SEARCH_CALLS: Final = ("web_search_calls", "x_search_calls")
_PLAIN: Final = frozenset(
    (
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
    )
)
# Of them, those that the sum and its parts are: more are details.
_LEAST_PLAIN: Final = 3
_PLAIN_INPUT: Final = frozenset(("cached_tokens", "audio_tokens"))
_PLAIN_OUTPUT: Final = frozenset(
    ("reasoning_tokens", "audio_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens")
)


def usage_from_json(
    value: object, *, tier: object = None, searches: int = 0, drawn: object = None
) -> Usage | None:
    """The `usage` object of an answer, or None where there is none or it makes no sense.

    `tier` is the answer's own `service_tier`, which most providers write beside the usage and not into it; `searches`
    how many it tells of elsewhere (`searches_of`), and `drawn` what its pictures took (`drawn_of`).
    """
    if not isinstance(value, dict):
        return None
    try:
        usage = _read_plain(value, tier) or read_any(value, tier)
        if drawn is not None and usage is not None and isinstance(drawn, dict):
            usage = _with_pictures(usage, read_any(drawn, None))
    except _SenselessError:
        return None
    if usage is not None and searches > usage.searches:
        return structs.replace(usage, searches=searches)
    return usage


def drawn_of(response: Mapping[str, Any]) -> object:
    """What the pictures took that OpenAI's responses draw by a model of their own, which their usage leaves out."""
    told = response.get("tool_usage")
    return told.get("image_gen") if isinstance(told, dict) else None


def _with_pictures(usage: Usage, drawn: Usage | None) -> Usage:
    """All that the other model read counts as pictures: the dearer of its two kinds of input."""
    if drawn is None:
        return usage
    return structs.replace(
        usage,
        input_tokens=usage.input_tokens + drawn.input_tokens,
        output_tokens=usage.output_tokens + drawn.output_tokens,
        image_input_tokens=usage.image_input_tokens + drawn.input_tokens,
        image_output_tokens=usage.image_output_tokens + (drawn.image_output_tokens or drawn.output_tokens),
    )


def of_pictures(usage: Usage | None, told: object) -> Usage | None:
    """The usage of an answer that is pictures: all that is written, where it does not say what of it is text."""
    if usage is None or not isinstance(told, dict) or _details(told, *_OUTPUT_DETAILS):
        return usage
    return structs.replace(usage, image_output_tokens=usage.output_tokens)


def searches_of(response: Mapping[str, Any]) -> int:
    """Searches that OpenAI's responses tell beside their usage: the count that is billed, else those in the output.

    Opening a page and looking through it is not billed.
    """
    try:
        told = response.get("tool_usage")
        web = told.get("web_search") if isinstance(told, dict) else None
        if isinstance(web, dict) and (count := _count(web.get("num_requests"))) is not None:
            return count
    except _SenselessError:
        return 0
    output = response.get("output")
    return sum(_is_search(item) for item in output) if isinstance(output, list) else 0


def _is_search(item: object) -> bool:
    if not isinstance(item, dict) or item.get("type") != "web_search_call":
        return False
    action = item.get("action")
    return not isinstance(action, dict) or action.get("type") in (None, "search")


def _read_plain(value: Mapping[str, Any], tier: object) -> Usage | None:
    """OpenAI's own form, whose parts make its sum: what most answers hold. None where it is any other.

    A fifth of the work of the rest; a test holds both to the same counts.
    """
    if not value.keys() <= _PLAIN:
        return None
    read, written = value.get("prompt_tokens"), value.get("completion_tokens")
    if (
        type(read) is not int
        or type(written) is not int
        or not (0 < read <= _MOST_TOKENS and 0 <= written <= _MOST_TOKENS)
        or value.get("total_tokens") != read + written
    ):
        return None
    if len(value) == _LEAST_PLAIN:
        return Usage(read, written, tier=_text(tier))
    of_input, of_output = value.get("prompt_tokens_details"), value.get("completion_tokens_details")
    if not (_is_plain(of_input, _PLAIN_INPUT) and _is_plain(of_output, _PLAIN_OUTPUT)):
        return None
    of_input, of_output = of_input or {}, of_output or {}
    reasoning = of_output.get("reasoning_tokens", 0)
    if reasoning > written:
        return None
    return Usage(
        read,
        written,
        min(of_input.get("cached_tokens", 0), read),
        reasoning_tokens=reasoning,
        tier=_text(tier),
        audio_input_tokens=min(of_input.get("audio_tokens", 0), read),
        audio_output_tokens=min(of_output.get("audio_tokens", 0), written),
    )


def _is_plain(details: object, names: frozenset[str]) -> bool:
    """Whether there are none, or counts alone."""
    if details is None:
        return True
    return (
        isinstance(details, dict)
        and details.keys() <= names
        and all(type(each) is int and 0 <= each <= _MOST_TOKENS for each in details.values())
    )


def read_any(value: Mapping[str, Any], tier: object) -> Usage | None:
    """Of any provider's form. Raises where a number can't be a count of tokens."""
    if isinstance(passes := value.get("iterations"), list) and len(passes) > 1:
        value = _summed(value, passes)
    if value.keys().isdisjoint(_COUNTS):
        value = _unpacked(value)
    read = _first(value, _INPUT) or sum(_count(value.get(name)) or 0 for name in _HIT_AND_MISS)
    read += _count(value.get(_TOOL_INPUT)) or 0
    written, total = _first(value, _OUTPUT) or 0, _first(value, _TOTAL)
    of_input = _details(value, *_INPUT_DETAILS) or _by_modality(value, "promptTokensDetails")
    of_output = _details(value, *_OUTPUT_DETAILS) or _by_modality(value, "candidatesTokensDetails")
    on_top_read = _first(value, _ON_TOP_READ) or 0
    kept_long, on_top_written = _cache_writes(value, of_input)
    if not read and not (on_top_read or on_top_written):
        return _without_parts(value, written, total)
    cached = _first(of_input, _CACHED) or _first(value, _CACHED) or 0
    into_cache = _first(of_input, _WRITTEN) or _first(value, _WRITTEN) or 0
    if on_top_read or on_top_written:
        # Proxies that speak OpenAI's dialect count them into the prompt; Anthropic itself beside it.
        if not _is_inside(value, read + written, on_top_read + on_top_written, total):
            read += on_top_read + on_top_written
        cached, into_cache = max(cached, on_top_read), max(into_cache, on_top_written)
    written, reasoning = _written(value, of_output, read, written, total=total)
    cached = min(cached, read)
    stored = min(max(into_cache, kept_long), read - cached)
    usage = Usage(
        read,
        written,
        cached,
        cache_write_tokens=stored,
        reasoning_tokens=reasoning,
        searches=_searches(value),
        tier=_tier(value, tier),
        long_cache_write_tokens=min(kept_long, stored),
        told_nusd=told_nusd(value),
    )
    return _with_kinds(usage, value, of_input, of_output)


def _with_kinds(
    usage: Usage, value: Mapping[str, Any], of_input: Mapping[str, Any], of_output: Mapping[str, Any]
) -> Usage:
    """With what of it is sound or pictures, how long the sound is, and where it was answered."""
    of_cache = _details(of_input, "cached_tokens_details") or _by_modality(value, "cacheTokensDetails")
    heard, seen = (_count(of_input.get(name)) or 0 for name in _KINDS)
    spoken, drawn = (_count(of_output.get(name)) or 0 for name in _KINDS)
    return structs.replace(
        usage,
        audio_input_tokens=min(heard, usage.input_tokens),
        audio_output_tokens=min(spoken, usage.output_tokens),
        image_input_tokens=min(seen, usage.input_tokens),
        image_output_tokens=min(drawn, usage.output_tokens),
        cached_image_tokens=min(_count(of_cache.get("image_tokens")) or 0, usage.cached_input_tokens),
        seconds=_first(value, _SECONDS) or 0,
        region=_region(value),
    )


def _without_parts(value: Mapping[str, Any], written: int, total: int | None) -> Usage | None:
    """Where no input is told: searches or a time alone, or the sum alone, of which the dearer part is the bound."""
    units, seconds = _searches(value), _first(value, _SECONDS) or 0
    if not total and (units or seconds):
        return Usage(0, 0, searches=units, seconds=seconds, told_nusd=told_nusd(value))
    return Usage(0, total, told_nusd=told_nusd(value)) if total and not written else None


def _written(
    value: Mapping[str, Any], details: Mapping[str, Any], read: int, written: int, *, total: int | None
) -> tuple[int, int]:
    """The output with its reasoning, and the reasoning: inside it, beside it, or only in the sum."""
    reasoning = _first(details, ("reasoning_tokens",)) or _count(value.get("reasoning_tokens")) or 0
    thoughts = _count(value.get("thoughtsTokenCount")) or 0
    written += thoughts
    if total is not None and total > read + written:
        written = total - read
    elif reasoning > written:  # more than there is inside: it stands beside
        written += reasoning
    return written, min(max(reasoning, thoughts), written)


def _summed(value: Mapping[str, Any], passes: list[Any]) -> Mapping[str, Any]:
    """Anthropic bills every pass of a call; beside them it tells those alone that wrote the answer."""
    names = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    sums = {
        name: sum(_count(each.get(name)) or 0 for each in passes if isinstance(each, dict)) for name in names
    }
    return {**value, **{name: max(count, _count(value.get(name)) or 0) for name, count in sums.items()}}


def _cache_writes(value: Mapping[str, Any], of_input: Mapping[str, Any]) -> tuple[int, int]:
    """Anthropic's: what is kept for an hour, and all that is written beside the input.

    A stream tells the kinds at its begin, and only the sum of what its later passes write: where some of it is kept for
    an hour, what is in no kind may be, too.
    """
    parts = value.get("cache_creation")
    within = of_input.get("cache_creation")
    told = parts if isinstance(parts, dict) else within if isinstance(within, dict) else {}
    kept_long = _count(told.get("ephemeral_1h_input_tokens")) or 0
    short = _count(told.get("ephemeral_5m_input_tokens")) or 0
    beside = kept_long + short if isinstance(parts, dict) else 0
    written = max(_first(value, _ON_TOP_WRITTEN) or 0, beside)
    if kept_long:
        kept_long = max(kept_long, written - short)
    return kept_long, written


def _unpacked(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the counts that stand one deeper: what is billed, before what was read."""
    for name in ("billed_units", "tokens"):
        place = value.get(name)
        if isinstance(place, dict) and any(_first(place, names) for names in (_INPUT, _OUTPUT, _TOTAL)):
            return {**place, **value}
    return value


def _by_modality(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Gemini's list, as others write the same: `audio_tokens`, `image_tokens`."""
    told = value.get(name)
    found: dict[str, int] = {}
    for each in told if isinstance(told, list) else ():
        if isinstance(each, dict):
            kind = f"{_text(each.get('modality')).lower()}_tokens"
            found[kind] = found.get(kind, 0) + (_count(each.get("tokenCount")) or 0)
    return found


def _region(value: Mapping[str, Any]) -> str:
    region = _text(value.get("inference_geo"))
    return "" if region in _ANYWHERE else region


def _tier(value: Mapping[str, Any], beside: object) -> str:
    """Anthropic tells its fast mode as a speed."""
    speed = _text(value.get("speed"))
    if speed not in ("", "standard"):
        return speed
    return _text(value.get("service_tier")) or _text(beside)


def _is_inside(value: Mapping[str, Any], told: int, on_top: int, total: int | None) -> bool:
    """Whether the tokens of Anthropic's cache are a part of the prompt that is told beside them."""
    if total is not None and told <= total < told + on_top:
        return True
    return "prompt_tokens" in value and total is None and (_count(value.get("prompt_tokens")) or 0) >= on_top


def _searches(value: Mapping[str, Any]) -> int:
    """Billed each: Anthropic's and Perplexity's, xAI's (its agents' calls, `num_sources_used`), Cohere's units."""
    for name, member in (("server_tool_use", "web_search_requests"), ("billed_units", "search_units")):
        place = value.get(name)
        found = _count(place.get(member)) if isinstance(place, dict) else None
        if found:
            return found
    if isinstance(agents := value.get("server_side_tool_usage_details"), dict):
        found = sum(_count(agents.get(name)) or 0 for name in _SEARCH_CALLS)
        if found:
            return found
    return _count(value.get("num_search_queries")) or _count(value.get("num_sources_used")) or 0


def _details(value: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        found = value.get(name)
        if isinstance(found, dict) and found:
            return found
    return {}


def _first(value: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """The first of the fields that holds a count; nothing counts where another one of them holds more."""
    none: int | None = None
    for name in names:
        if name in value:
            found = _count(value[name])
            if found:
                return found
            none = none if found is None else found
    return none


class _SenselessError(Exception):
    """A number that can't be a count of tokens."""


def _count(value: object) -> int | None:
    """A whole number from any way of writing one; None where there is none."""
    if value is None:
        return None
    value = number_of(value)
    if value is None:
        return None
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _SenselessError
        value = math.ceil(value)
    if not 0 <= value <= _MOST_TOKENS:
        raise _SenselessError
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
