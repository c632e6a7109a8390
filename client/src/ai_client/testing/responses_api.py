"""What the simulated Responses API answers, streams and keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ai_client.testing.replies import CREATED_S, Json, count_tokens, encode, reply_words


def prompt_of(body: Mapping[str, Any]) -> str:
    """All text of the input, instructions included."""
    given = body.get("input") or ""
    texts = [str(body.get("instructions") or "")]
    for item in [{"content": given}] if isinstance(given, str) else given:
        content = item.get("content", item.get("output", ""))
        parts = [content] if isinstance(content, str) else content
        texts += [part if isinstance(part, str) else str(part.get("text", "")) for part in parts or ()]
    return "\n".join(text for text in texts if text)


def response(body: Mapping[str, Any], serial: int, *, status: str = "completed") -> Json:
    """A whole `response` object; in progress it has neither output nor usage."""
    output, tokens = _output(body, serial)
    is_over = status == "completed"
    return {
        "id": f"resp_{serial:08d}",
        "object": "response",
        "created_at": CREATED_S,
        "status": status,
        "background": bool(body.get("background")),
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "model": body.get("model"),
        "output": output if is_over else [],
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": body.get("reasoning") or {"effort": None, "summary": None},
        "store": body.get("store", True),
        "temperature": 1.0,
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": _usage(body, tokens) if is_over else None,
        "service_tier": body.get("service_tier") or "default",
        "tool_usage": {"web_search": {"num_requests": int(_searches(body))}} if is_over else None,
        "user": None,
    }


def gone_on(before: Json, body: Mapping[str, Any], serial: int) -> Json:
    """A response of the background, a step later: queued, in progress, completed."""
    following = "in_progress" if before["status"] == "queued" else "completed"
    return response(body, serial, status=following)


def _usage(body: Mapping[str, Any], output_tokens: int) -> Json:
    prompt_tokens = count_tokens(prompt_of(body))
    return {
        "input_tokens": prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt_tokens + output_tokens,
    }


def _searches(body: Mapping[str, Any]) -> bool:
    """Whether the provider may search the web: then it does so once."""
    return any(str(tool.get("type")).startswith("web_search") for tool in body.get("tools") or ())


def _output(body: Mapping[str, Any], serial: int) -> tuple[list[Json], int]:
    tools = [tool for tool in body.get("tools") or () if tool.get("type") == "function"]
    given = body.get("input") or ""
    has_result = isinstance(given, list) and any(item.get("type") == "function_call_output" for item in given)
    if tools and not has_result:
        call = {
            "id": f"fc_{serial:08d}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"call_{serial:08d}",
            "name": tools[0]["name"],
            "arguments": '{"city":"Paris"}',
        }
        return [call], 8
    words = reply_words({"prompt": prompt_of(body), "max_tokens": body.get("max_output_tokens")})
    text = " ".join(words)
    if ((body.get("text") or {}).get("format") or {}).get("type") in ("json_object", "json_schema"):
        text = json.dumps({"answer": text})
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    message = {
        "id": f"msg_{serial:08d}",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": content,
    }
    return [message], len(words)


def stream(body: Mapping[str, Any], serial: int) -> list[bytes]:
    """The events of a streamed response, without an end marker, as OpenAI sends them."""
    whole = response(body, serial)
    begun = response(body, serial, status="in_progress")
    events: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(whole["output"]):
        events += _item_events(item, index)
    events.append({"type": "response.completed", "response": whole})
    return [event_bytes(event | {"sequence_number": number}) for number, event in enumerate(events)]


def _item_events(item: Json, index: int) -> list[Json]:
    where = {"output_index": index, "item_id": item["id"]}
    nothing: Json = {"content": []} if item["type"] == "message" else {"arguments": ""}
    empty = item | {"status": "in_progress"} | nothing
    added: Json = {"type": "response.output_item.added", "output_index": index, "item": empty}
    done: Json = {"type": "response.output_item.done", "output_index": index, "item": item}
    if item["type"] == "function_call":
        arguments = item["arguments"]
        return [
            added,
            {"type": "response.function_call_arguments.delta", "delta": arguments} | where,
            {"type": "response.function_call_arguments.done", "arguments": arguments, "name": item["name"]}
            | where,
            done,
        ]
    part = item["content"][0]
    where |= {"content_index": 0}
    words = part["text"].split(" ")
    deltas = [word if place == 0 else f" {word}" for place, word in enumerate(words)]
    return [
        added,
        {"type": "response.content_part.added", "part": part | {"text": ""}} | where,
        *({"type": "response.output_text.delta", "delta": delta, "logprobs": []} | where for delta in deltas),
        {"type": "response.output_text.done", "text": part["text"], "logprobs": []} | where,
        {"type": "response.content_part.done", "part": part} | where,
        done,
    ]


def event_bytes(event: Json) -> bytes:
    """An event with its name."""
    return b"event: " + str(event["type"]).encode() + b"\ndata: " + encode(event) + b"\n\n"


def input_items(body: Mapping[str, Any]) -> Json:
    """The list of what a response was made from."""
    given = body.get("input") or ""
    items = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
    data = []
    for number, item in enumerate(items):
        content = item.get("content", "")
        parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
        kept = {
            "id": f"msg_in_{number}",
            "type": "message",
            "role": item.get("role", "user"),
            "status": "completed",
        }
        data.append(kept | {"content": parts})
    ids = [item["id"] for item in data] or [None]
    return {"object": "list", "data": data, "first_id": ids[0], "last_id": ids[-1], "has_more": False}


def compacted(body: Mapping[str, Any], serial: int) -> Json:
    """A compacted conversation: one opaque item that stands for all."""
    whole = response(body, serial)
    item = {"id": f"cmp_{serial:08d}", "type": "compaction", "encrypted_content": "simulated"}
    return {
        "id": f"resp_{serial:08d}",
        "object": "response.compaction",
        "created_at": CREATED_S,
        "output": [item],
        "usage": whole["usage"],
    }
