"""What the simulated Messages API of Anthropic answers and streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ai_client.testing.replies import Json, count_tokens, reply_words
from ai_client.testing.responses_api import event_bytes

VERSION_HEADER = "anthropic-version"


def prompt_of(body: Mapping[str, Any]) -> str:
    """All text of the request, system prompt included."""
    texts = _texts(body.get("system"))
    for message in body.get("messages") or ():
        texts += _texts(message.get("content"))
    return "\n".join(texts)


def _texts(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    return [str(part.get("text") or "") for part in parts if isinstance(part, dict)]


def message(body: Mapping[str, Any], serial: int) -> Json:
    """A whole message."""
    content, reason, tokens = _content(body, serial)
    return {
        "id": f"msg_{serial:08d}",
        "type": "message",
        "role": "assistant",
        "model": body.get("model"),
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": _usage(body) | {"output_tokens": tokens},
    }


def _usage(body: Mapping[str, Any]) -> Json:
    told: Json = {"inference_geo": body.get("inference_geo") or "global"}
    if "speed" in body:
        told["speed"] = body["speed"]
    if any(str(tool.get("type")).startswith("web_search_") for tool in body.get("tools") or ()):
        told["server_tool_use"] = {"web_search_requests": 1}
    return told | {
        "input_tokens": count_tokens(prompt_of(body)),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 1,
        "service_tier": "standard",
    }


def _content(body: Mapping[str, Any], serial: int) -> tuple[list[Json], str, int]:
    messages = body.get("messages") or [{}]
    last = messages[-1].get("content")
    has_result = isinstance(last, list) and any(part.get("type") == "tool_result" for part in last)
    tools = [tool for tool in body.get("tools") or () if "input_schema" in tool]
    if tools and not has_result:
        call = {
            "type": "tool_use",
            "id": f"toolu_{serial:08d}",
            "name": tools[0]["name"],
            "input": {"city": "Paris"},
        }
        return [call], "tool_use", 8
    words = reply_words({"prompt": prompt_of(body), "max_tokens": min(body.get("max_tokens") or 16, 16)})
    reason = "max_tokens" if len(words) == body.get("max_tokens") else "end_turn"
    return [{"type": "text", "text": " ".join(words)}], reason, len(words)


def stream(body: Mapping[str, Any], serial: int) -> list[bytes]:
    """The events of a streamed message: the input's tokens in the first, the output's in the last but one."""
    whole = message(body, serial)
    begun = whole | {"content": [], "stop_reason": None, "usage": _usage(body)}
    events: list[Json] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
    for index, block in enumerate(whole["content"]):
        events += _block_events(block, index)
    delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    usage = {"output_tokens": whole["usage"]["output_tokens"]}
    events += [{"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]
    return [event_bytes(event) for event in events]


def _block_events(block: Json, index: int) -> list[Json]:
    if block["type"] == "tool_use":
        begun: Json = block | {"input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": '{"city": "Paris"}'}]
    else:
        begun = {"type": "text", "text": ""}
        words = block["text"].split(" ")
        deltas = [
            {"type": "text_delta", "text": word if place == 0 else f" {word}"}
            for place, word in enumerate(words)
        ]
    return [
        {"type": "content_block_start", "index": index, "content_block": begun},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def error(message_text: str, *, kind: str) -> Json:
    """An error in Anthropic's shape."""
    return {"type": "error", "error": {"type": kind, "message": message_text}}
