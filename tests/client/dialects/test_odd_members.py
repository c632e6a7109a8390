"""A member of other people's JSON holds anything: whatever stands in the place of a word, a reader gives its verdict.

Not drawn but gone through: every member of bodies and events as they are seen, with a value of every kind in its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from ai_client.contract.apis import Family
from ai_client.dialects.body_reader import read_body
from ai_client.dialects.error_answers import error_from_answer
from ai_client.dialects.stream_reader import StreamReader
from ai_client.dialects.typed_streams import TypedStreamReader
from ai_client.dialects.upper_bound import bound_of_any, bounded_fields
from ai_client.errors import AIClientError

ODD = [[], {}, [[]], [{}], {"a": []}, ["a", "b"], 0, 1, -1, 1.5, 10**400, True, None, "", "x"]
_PART = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
_PARTS = [
    _PART,
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
    {"type": "input_audio", "input_audio": {"data": "A" * 80, "format": "wav"}},
    {"type": "file", "file": {"file_data": "data:text/plain,a", "file_id": ""}},
    {"type": "tool_result", "content": [_PART]},
]
_TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
REQUESTS: dict[str, dict[str, Any]] = {
    "chat/completions": {
        "model": "gpt-4.1",
        "messages": [{"role": "user", "content": _PARTS}],
        "max_tokens": 5,
        "tools": [_TOOL],
        "modalities": ["text"],
        "reasoning": {"effort": "low", "max_tokens": 5},
        "thinking": {"type": "enabled", "budget_tokens": 5},
        "extra_body": {"google": {"thinking_config": {"thinking_budget": 5}}},
        "service_tier": "auto",
        "speed": "standard",
        "inference_geo": "global",
        "prediction": {"type": "content", "content": "a"},
        "web_search_options": {},
        "n": 1,
    },
    "completions": {"model": "gpt-4.1", "prompt": ["a", [1]], "best_of": 1, "max_tokens": 5},
    "responses": {"model": "gpt-4.1", "input": [{"type": "message", "content": _PARTS}], "tools": [_TOOL]},
    "messages": {"model": "claude-sonnet-4-5", "system": [_PART], "messages": [{"content": _PARTS}]},
    "embeddings": {"model": "text-embedding-3-small", "input": ["a"]},
    "rerank": {"model": "rerank-v3.5", "query": "q", "documents": [{"text": "a", "type": "text"}]},
    "images/generations": {"model": "gpt-image-1", "prompt": "a", "n": 1, "partial_images": 1},
}
_USAGE = {
    "prompt_tokens": 1,
    "completion_tokens": 1,
    "total_tokens": 2,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 1},
    "cache_creation": {"ephemeral_1h_input_tokens": 1},
    "iterations": [{"input_tokens": 1}, {"input_tokens": 1}],
    "cost": {"total_cost": 1},
    "service_tier": "default",
    "speed": "standard",
}
_RESPONSE = {"id": "resp_1", "object": "response", "status": "completed", "output": [], "usage": _USAGE}
ANSWERS: list[dict[str, Any]] = [
    {
        "type": "chat",
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "a"}, "delta": {}}],
        "usage": _USAGE,
        "service_tier": "default",
        "base_resp": {"status_code": 0, "status_msg": "ok"},
        "x_groq": {"usage": _USAGE},
    },
    {"object": "list", "data": [{"embedding": [1]}], "usage": _USAGE},
    {"type": "error", "error": {"type": "a", "code": "b", "message": "c", "param": "d", "details": [{}]}},
    {"type": "response.completed", "response": _RESPONSE},
    {"type": "response.failed", "response": {**_RESPONSE, "error": {"code": "a", "message": "b"}}},
    {"type": "message_start", "message": {"type": "message", "content": [], "usage": _USAGE}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
    {"type": "image_generation.completed", "usage": _USAGE},
    {"code": 1, "detail": "a", "message": "b", "error_code": 2},
    _RESPONSE,
]


def spoilt(value: Any) -> Iterator[Any]:
    """The same with one of its members of another kind, for every member, however deep, and every kind."""
    places = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for place, inner in places:
        for other in [*ODD, *spoilt(inner)]:
            changed = value.copy()
            changed[place] = other
            yield changed


@pytest.mark.parametrize("endpoint", REQUESTS)
def test_whatever_a_request_holds_has_a_bound_or_is_named(endpoint: str) -> None:
    """Bytes of the caller: what can't be bounded is told, never a fault of ours."""
    for body in spoilt(REQUESTS[endpoint]):
        bound = bound_of_any(endpoint, body, model="gpt-4.1", body_bytes=500, default_output=100)
        assert bound.usage.input_tokens >= 0, body
        assert bounded_fields(endpoint, body, 5, is_openai=True)


def test_a_part_of_a_kind_that_is_no_word_refers_to_what_is_not_known() -> None:
    """So it counts as the dearest reading, as any other kind that nobody knows."""
    for kind in ([], ["text"], {"text": 1}, 1, True):
        body = {"query": "q", "documents": [{"text": "a", "type": kind}]}
        bound = bound_of_any("rerank", body, model="nobody-knows-it", body_bytes=50, default_output=9)
        assert bound.unbounded is not None, kind


@pytest.mark.parametrize(
    "answer", ANSWERS, ids=lambda answer: str(answer.get("type") or answer.get("object"))
)
def test_whatever_an_answer_or_an_event_holds_is_judged(answer: dict[str, Any]) -> None:
    """Whole, as an error's body, and as an event of every family."""
    for value in spoilt(answer):
        text = json.dumps(value).encode()
        for endpoint in REQUESTS:
            read_body(text, endpoint)
        error = error_from_answer(
            500, {}, text, model="m", key_fingerprint="0" * 12, request_id="r", wall_s=1.7e9
        )
        assert isinstance(error, AIClientError)
        typed = [TypedStreamReader(family) for family in _FAMILIES]
        readers: list[StreamReader | TypedStreamReader] = [StreamReader(), *typed]
        for reader in readers:
            with suppress(AIClientError):
                reader.feed(b"data: " + text + b"\n\n")
                reader.finish()
            assert reader.is_whole in (True, False)
            assert reader.usage is None or reader.usage.total_tokens >= 0


_FAMILIES = (Family.RESPONSES, Family.ANTHROPIC, Family.MEDIA, Family.UNKNOWN)
