"""Server-sent events as OpenAI-compatible upstreams send them: `data: {json}` lines, then `data: [DONE]`."""

from __future__ import annotations

import json
from typing import Any

from ai_client.errors import MalformedResponseError
from ai_client.request import Usage, usage_from_json

_TAIL_BYTES = 16 * 1024


class SSEParser:
    """Splits a byte stream into the JSON objects of its `data:` lines, however it was cut into chunks."""

    __slots__ = ("_rest", "done")

    def __init__(self) -> None:
        self._rest = b""
        #: Whether the end marker came.
        self.done = False

    def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        """The objects that are whole after `chunk`. Raises MalformedResponseError where one is not JSON."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        parsed: list[dict[str, Any]] = []
        for line in lines:
            data = _data_of(line)
            if data == b"[DONE]":
                self.done = True
            elif data:
                parsed.append(_parse(data))
        return parsed


class StreamTail:
    """Watches a stream go by and keeps its last bytes, to tell in the end whether it was whole, and its usage."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, chunk: bytes) -> None:
        tail = self._tail + chunk
        self._tail = tail if len(tail) <= _TAIL_BYTES else tail[-_TAIL_BYTES:]

    @property
    def complete(self) -> bool:
        """Whether the end marker came."""
        return any(_data_of(line) == b"[DONE]" for line in self._tail.rsplit(b"\n", 4)[1:] or [self._tail])

    @property
    def usage(self) -> Usage | None:
        """The last usage that the stream told of."""
        for line in reversed(self._tail.split(b"\n")):
            if b'"usage"' in line and (usage := _usage_of(line)) is not None:
                return usage
        return None


def _data_of(line: bytes) -> bytes:
    return line[5:].strip() if line.startswith(b"data:") else b""


def _usage_of(line: bytes) -> Usage | None:
    try:
        value = json.loads(_data_of(line))
    except ValueError:
        return None
    return usage_from_json(value.get("usage")) if isinstance(value, dict) else None


def _parse(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise MalformedResponseError("upstream", "sent a stream event that is not JSON") from error
    if not isinstance(value, dict):
        raise MalformedResponseError("upstream", "sent a stream event that is not an object")
    return value
