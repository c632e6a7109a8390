"""Server-sent events (WHATWG HTML 9.2), cut into events as their bytes come. Pure.

Lines end with LF, CRLF or CR; a byte order mark may come first; an event may have several `data:` lines, with or
without a space; a comment of one line is an event's length of its own, so that it can be passed on at once.
"""

from __future__ import annotations

import re
from typing import Any, Final

from msgspec import Struct

from ai_client.errors import MalformedResponseError
from ai_client.platform.json_text import read_json

#: A longer event is no event: pictures inline are a few megabytes.
MOST_EVENT_BYTES: Final = 32 * 1024 * 1024
#: The end marker's data; some write it in small letters.
DONE: Final = b"[done]"
_BOM: Final = b"\xef\xbb\xbf"
# Atomic, so that CR and LF of one line end are never taken for two.
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_EVENT_END: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_BEFORE_AN_EVENT: Final = (b":", b"\n", b"\r")
_COMMENT: Final = re.compile(rb"(?::[^\r\n]*)?(?:\r\n|\n|\r(?=[^\n]))")


class Event(Struct):
    """`raw` are its bytes with the empty line; a comment has no `data`, nor has what only names an id or a retry."""

    raw: bytes
    name: bytes = b""
    data: tuple[bytes, ...] = ()


class EventSplitter:
    """From a byte stream, however it was cut into chunks, to events."""

    __slots__ = ("_begun", "_is_first", "_skips_newline")

    def __init__(self) -> None:
        self._begun = bytearray()
        self._is_first = True
        #: The last event ended with a CR at a chunk's end: a LF that comes next belongs to it.
        self._skips_newline = False

    @property
    def is_between_events(self) -> bool:
        """Whether nothing has begun: what comes next is an event's first byte, or a byte order mark."""
        return not self._begun and not self._skips_newline

    def feed(self, chunk: bytes) -> list[Event]:
        """The events and comments that are whole after `chunk`. Raises MalformedResponseError where one has no end."""
        seen = len(self._begun)
        if seen:
            self._begun += chunk
            # An end may have begun in what was there before: up to three bytes of CR LF CR LF.
            if not self._is_first and not self._has_end(chunk, max(0, seen - 3)):
                return []
            chunk = bytes(self._begun)
            self._begun.clear()
        if self._is_first and chunk:
            chunk = self._without_mark(chunk)
        return self._events(chunk)

    def rest(self) -> list[Event]:
        """What has begun and has no empty line behind it: an upstream may end without one."""
        rest = bytes(self._begun)
        self._begun.clear()
        return [read_event(rest)] if rest else []

    def _has_end(self, chunk: bytes, start: int) -> bool:
        if len(self._begun) > MOST_EVENT_BYTES:
            raise MalformedResponseError("upstream", f"sent an event of over {MOST_EVENT_BYTES} bytes")
        if b"\n" not in chunk and b"\r" not in chunk:
            return False
        return bytes(self._begun[:1]) in _BEFORE_AN_EVENT or _EVENT_END.search(self._begun, start) is not None

    def _events(self, text: bytes) -> list[Event]:
        events: list[Event] = []
        if self._skips_newline and text:
            self._skips_newline = False
            if text[:1] == b"\n":
                events.append(Event(b"\n"))
                text = text[1:]
        start = 0
        for end in _EVENT_END.finditer(text):
            events.append(read_event(text[start : end.end()]))
            start = end.end()
        if start and start == len(text) and text[-1:] == b"\r":
            self._skips_newline = True
        self._begun += self._comments(text[start:] if start else text, events)
        return events

    def _without_mark(self, text: bytes) -> bytes:
        if len(text) < len(_BOM) and _BOM.startswith(text):
            return text
        self._is_first = False
        return text.removeprefix(_BOM)

    @staticmethod
    def _comments(text: bytes, events: list[Event]) -> bytes:
        """Takes whole lines of comment off the begin: nobody has to wait for what follows them."""
        if text[:1] not in _BEFORE_AN_EVENT:
            return text
        start = 0
        while (line := _COMMENT.match(text, start)) is not None:
            events.append(Event(line.group()))
            start = line.end()
        return text[start:]


def read_event(raw: bytes) -> Event:
    """One event's name and data lines, from its bytes."""
    if raw.startswith(b"data: {") and raw.endswith(b"}\n\n") and raw.count(b"\n") == 2 and b"\r" not in raw:
        return Event(raw, b"", (raw[6:-2],))
    name, data = b"", []
    for line in _LINE_END.split(raw):
        if line.startswith(b"data:"):
            data.append(line[5:].strip())
        elif line.startswith(b"event:"):
            name = line[6:].strip()
        elif line.strip().lower() == DONE:
            data.append(line.strip())
    return Event(raw, name, tuple(data))


def payloads(event: Event) -> list[bytes]:
    """The texts that an event carries: one of all its data lines, or each of them where they are texts of their own."""
    data = [line for line in event.data if line]
    if len(data) < 2:
        return data
    joined = b"\n".join(data)
    try:
        read_json(joined)
    except ValueError:
        return data
    return [joined]


class SSEParser:
    """The JSON objects of a stream's events, for those who read a whole answer piece by piece."""

    __slots__ = ("_splitter", "done")

    def __init__(self) -> None:
        self._splitter = EventSplitter()
        #: Whether the end marker came.
        self.done = False

    def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        """The objects that are whole after `chunk`. Raises MalformedResponseError where one is not JSON."""
        return self._parsed(self._splitter.feed(chunk))

    def rest(self) -> list[dict[str, Any]]:
        """What came last, where no empty line ended it."""
        return self._parsed(self._splitter.rest())

    def _parsed(self, events: list[Event]) -> list[dict[str, Any]]:
        parsed: list[dict[str, Any]] = []
        for event in events:
            for text in payloads(event):
                if text.lower() == DONE:
                    self.done = True
                else:
                    parsed.append(parse_object(text))
        return parsed


def parse_object(text: bytes) -> dict[str, Any]:
    """An event's JSON object. Raises MalformedResponseError."""
    try:
        value = read_json(text)
    except ValueError as error:
        raise MalformedResponseError("upstream", "sent a stream event that is not JSON") from error
    if not isinstance(value, dict):
        raise MalformedResponseError("upstream", "sent a stream event that is not an object")
    return value
