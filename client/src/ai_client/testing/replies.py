"""What the simulated models answer: a pure function of the request, so that tests know it beforehand."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any

MODELS = ("gpt-4.1", "claude-sonnet-4.5", "gemini-2.5-flash", "deepseek-v3.2", "text-embedding-3-small")
DEFAULT_REPLY_TOKENS = 16
EMBEDDING_SIZE = 8
CREATED_S = 1_700_000_000

Json = dict[str, Any]


def encode(value: object) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def count_tokens(text: str) -> int:
    """About four characters a token, at least one."""
    return max(1, (len(text) + 3) // 4)


def prompt_text(body: Mapping[str, Any]) -> str:
    """All text of a request that a provider would bill as its input."""
    if "messages" in body:
        parts = [message.get("content") or "" for message in body["messages"]]
        return "\n".join(part if isinstance(part, str) else json.dumps(part) for part in parts)
    given = body.get("prompt", body.get("input", ""))
    return given if isinstance(given, str) else "\n".join(str(part) for part in given)


def reply_words(body: Mapping[str, Any]) -> list[str]:
    """The words of the answer, a token each: as many as asked for, 16 where nothing is said."""
    wanted = body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_REPLY_TOKENS
    source = prompt_text(body).split()[:200] or ["ok"]
    return [source[index % len(source)] for index in range(min(int(wanted), 8192))]


def usage(body: Mapping[str, Any], completion_tokens: int) -> Json:
    """The token counts of an answer."""
    prompt_tokens = count_tokens(prompt_text(body))
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _identity(prefix: str, body: Mapping[str, Any], serial: int) -> Json:
    return {"id": f"{prefix}-{serial:08d}", "created": CREATED_S, "model": body.get("model", MODELS[0])}


def _wants_tool(body: Mapping[str, Any]) -> bool:
    messages = body.get("messages") or [{}]
    return (
        bool(body.get("tools")) and body.get("tool_choice") != "none" and messages[-1].get("role") != "tool"
    )


def _message(body: Mapping[str, Any]) -> tuple[Json, str, int]:
    """The assistant's message, its finish reason and its tokens."""
    if _wants_tool(body):
        function = {"name": body["tools"][0]["function"]["name"], "arguments": '{"city": "Paris"}'}
        call = {"id": "call_0", "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls", 8
    words = reply_words(body)
    text = " ".join(words)
    if (body.get("response_format") or {}).get("type") in ("json_object", "json_schema"):
        text = json.dumps({"answer": text})
    return {"role": "assistant", "content": text}, "stop", len(words)


def chat(body: Mapping[str, Any], serial: int) -> Json:
    """A `chat.completion`."""
    message, reason, tokens = _message(body)
    choices = [{"index": 0, "message": message, "finish_reason": reason}]
    return _identity("chatcmpl", body, serial) | {
        "object": "chat.completion",
        "choices": choices,
        "usage": usage(body, tokens),
    }


def completion(body: Mapping[str, Any], serial: int) -> Json:
    """A `text_completion`."""
    words = reply_words(body)
    choices = [{"index": 0, "text": " ".join(words), "finish_reason": "stop", "logprobs": None}]
    return _identity("cmpl", body, serial) | {
        "object": "text_completion",
        "choices": choices,
        "usage": usage(body, len(words)),
    }


def stream(body: Mapping[str, Any], serial: int, *, is_chat: bool) -> list[bytes]:
    """The events of a streamed answer, one a word, `[DONE]` last; with usage where it is asked for."""
    kind = "chat.completion.chunk" if is_chat else "text_completion"
    head = _identity("chatcmpl" if is_chat else "cmpl", body, serial) | {"object": kind}
    deltas, tokens, reason = _deltas(body, is_chat=is_chat)
    choices: list[Json] = [{"index": 0, "finish_reason": None} | delta for delta in deltas]
    end: Json = {"delta": {}} if is_chat else {"text": ""}
    choices.append({"index": 0, "finish_reason": reason} | end)
    events = [head | {"choices": [choice]} for choice in choices]
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append(head | {"choices": [], "usage": usage(body, tokens)})
    return [b"data: " + encode(event) + b"\n\n" for event in events] + [b"data: [DONE]\n\n"]


def _deltas(body: Mapping[str, Any], *, is_chat: bool) -> tuple[list[Json], int, str]:
    if is_chat and _wants_tool(body):
        message, reason, tokens = _message(body)
        call = message["tool_calls"][0] | {"index": 0}
        return [{"delta": {"role": "assistant", "content": None, "tool_calls": [call]}}], tokens, reason
    words = reply_words(body)
    texts = [word if index == 0 else f" {word}" for index, word in enumerate(words)]
    if is_chat:
        roles: list[Json] = [{"role": "assistant"}, *({} for _ in texts[1:])]
        deltas = [{"delta": role | {"content": text}} for role, text in zip(roles, texts, strict=True)]
        return deltas, len(words), "stop"
    return [{"text": text} for text in texts], len(words), "stop"


def embeddings(body: Mapping[str, Any]) -> Json:
    """One vector a text, the same for the same text."""
    given = body.get("input", "")
    texts = [given] if isinstance(given, str) else list(given)
    packed = body.get("encoding_format") == "base64"
    vectors = [_packed(_vector(str(text))) if packed else _vector(str(text)) for text in texts]
    data = [
        {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
    ]
    tokens = sum(count_tokens(str(text)) for text in texts)
    return {
        "object": "list",
        "data": data,
        "model": body.get("model", MODELS[-1]),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _vector(text: str) -> list[float]:
    digest = hashlib.sha256(text.encode()).digest()
    return [round(byte / 127.5 - 1, 6) for byte in digest[:EMBEDDING_SIZE]]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def models(names: tuple[str, ...]) -> Json:
    """The list of models."""
    data = [{"id": name, "object": "model", "created": CREATED_S, "owned_by": "simulator"} for name in names]
    return {"object": "list", "data": data}


def error(message: str, *, kind: str, code: str | None) -> Json:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
