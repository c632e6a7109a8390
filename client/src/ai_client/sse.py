"""Server-sent events as OpenAI-compatible upstreams send them: `data: {json}` lines, then `data: [DONE]`."""

from __future__ import annotations

import json
import re
from collections import deque
from typing import Any

from ai_client.errors import MalformedResponseError
from ai_client.json_text import read_json
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

    __slots__ = ("_chunks", "_kept_bytes")

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._kept_bytes = 0

    def feed(self, chunk: bytes) -> None:
        chunks = self._chunks
        chunks.append(chunk)
        self._kept_bytes += len(chunk)
        while self._kept_bytes - len(chunks[0]) >= _TAIL_BYTES:
            self._kept_bytes -= len(chunks.popleft())

    @property
    def _tail(self) -> bytes:
        if len(self._chunks) > 1:  # once, as it is looked at several times in the end
            self._chunks = deque((b"".join(self._chunks),))
        return self._chunks[0] if self._chunks else b""

    @property
    def is_complete(self) -> bool:
        """Whether the end marker came."""
        tail = self._tail
        for marker in _END_MARKERS:
            at = tail.rfind(marker)
            if at == 0 or (at > 0 and tail[at - 1] == _NEWLINE):
                return True
        return False

    @property
    def says_error(self) -> bool:
        """Whether the upstream broke it off with an error event."""
        tail = self._tail
        return b"error" in tail and _ERROR.search(tail) is not None

    @property
    def usage(self) -> Usage | None:
        """The last usage that the stream told of."""
        tail = self._tail
        at = tail.rfind(b'"usage"')
        while at >= 0:
            begin, end = tail.rfind(b"\n", 0, at) + 1, tail.find(b"\n", at)
            usage = _usage_of(tail[begin : end if end >= 0 else None])
            if usage is not None:
                return usage
            at = tail.rfind(b'"usage"', 0, begin)
        return None


_END_MARKERS = (b"data: [DONE]", b"data:[DONE]")
_NEWLINE = ord("\n")
_ERROR = re.compile(rb'^(?:data: ?\{\s*"error"\s*:\s*[{"]|event: ?error)', re.MULTILINE)
# Without choices, but with usage: what `include_usage` adds at the end. Azure's first event has neither.
_USAGE_EVENT = re.compile(rb'data: ?(?=[^\n]*"usage"\s*:\s*\{)[^\n]*"choices"\s*:\s*\[\s*\][^\n]*\r?\n\r?\n')
_USAGE = re.compile(rb'"usage"\s*:\s*(\{(?:[^{}]|\{[^{}]*\})*\})')


class UsageEventFilter:
    """Takes the usage event out of a stream whose caller did not ask for it.

    Whole events pass at once. The begun event at a chunk's end waits for its rest: nobody can use half of one.
    """

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun = b""

    def feed(self, chunk: bytes) -> bytes:
        if self._begun:
            chunk = self._begun + chunk
            self._begun = b""
        if not chunk.endswith((b"\n\n", b"\r\n\r\n")):
            end = chunk.rfind(b"\n\n") + 2
            if end < 2:
                end = 0
            chunk, self._begun = chunk[:end], chunk[end:]
        at = chunk.find(b'"prompt_tokens"')
        if at < 0:
            return chunk
        # From the line that has it: the pattern is slow, and what comes before is of no interest to it.
        begin = chunk.rfind(b"\n", 0, at) + 1
        return chunk[:begin] + _USAGE_EVENT.sub(b"", chunk[begin:])

    def rest(self) -> bytes:
        """What is left at the end: an upstream may end without an empty line."""
        rest, self._begun = self._begun, b""
        return rest


def usage_at_end(body: bytes) -> Usage | None:
    """The usage of a large JSON answer, from its last bytes, without parsing it all."""
    found = _USAGE.findall(body[-_TAIL_BYTES:])
    return usage_from_json(json.loads(found[-1])) if found else None


def _data_of(line: bytes) -> bytes:
    return line[5:].strip() if line.startswith(b"data:") else b""


def _usage_of(line: bytes) -> Usage | None:
    try:
        value = read_json(_data_of(line))
    except ValueError:
        return None
    return usage_from_json(value.get("usage")) if isinstance(value, dict) else None


def _parse(data: bytes) -> dict[str, Any]:
    try:
        value = read_json(data)
    except ValueError as error:
        raise MalformedResponseError("upstream", "sent a stream event that is not JSON") from error
    if not isinstance(value, dict):
        raise MalformedResponseError("upstream", "sent a stream event that is not an object")
    return value
