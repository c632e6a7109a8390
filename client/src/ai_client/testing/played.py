"""Answers that real providers gave, as public reports tell them, for a likeness to give in place of its own.

`plays/NAME.json` has those of one provider by name; a text in place of one names another provider's that is the same.
`tests/client/corpus` says of each what a client should make of it.

| of an answer | |
|---|---|
| `status` [200], `headers`, `json`, `text`, `base64` | a whole answer |
| `events` | a stream: objects become `data:` lines, texts stay as they are; `newline` [LF] |
| `repeat` | the text `REPEAT` within becomes so many letters |
| `ends` | `close`: without length; `cut`: before its end |
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

Answer = Mapping[str, Any]


@cache
def plays_of(provider: str) -> Mapping[str, Answer]:
    """What its likeness plays on demand, by name; nothing for the plain simulator."""
    return {
        name: _resolved(answer) if isinstance(answer, str) else answer
        for name, answer in _read(provider).items()
    }


def play(name: str) -> Answer:
    """By `PROVIDER/NAME`. Raises KeyError."""
    return _resolved(name)


def _resolved(name: str) -> Answer:
    provider, _, own_name = name.partition("/")
    answer: Answer = _read(provider)[own_name]
    return answer


@cache
def _read(provider: str) -> dict[str, Any]:
    file = resources.files("ai_client.testing") / "plays" / f"{provider}.json"
    if not provider or not file.is_file():
        return {}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def wire(answer: Answer) -> bytes:
    """The bytes of an answer, head and body."""
    content = _content(answer).replace(b"REPEAT", b"x" * answer.get("repeat", 0))
    kind = "text/event-stream" if "events" in answer else "application/json"
    headers = {"content-type": kind, **answer.get("headers", {})}
    lines = [f"HTTP/1.1 {answer.get('status', 200)} Said", *(f"{name}: {headers[name]}" for name in headers)]
    if "ends" in answer:
        lines.append("connection: close")
    if answer.get("ends") != "close":
        lines.append(f"content-length: {len(content) + 10 * (answer.get('ends') == 'cut')}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def _content(answer: Answer) -> bytes:
    if "events" in answer:
        lines = [each if isinstance(each, str) else f"data: {json.dumps(each)}" for each in answer["events"]]
        text = "".join(line + "\n\n" for line in lines)
        return text.replace("\n", answer.get("newline", "\n")).encode()
    if "base64" in answer:
        return base64.b64decode(answer["base64"])
    return answer["text"].encode() if "text" in answer else json.dumps(answer["json"]).encode()
