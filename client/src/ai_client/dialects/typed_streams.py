"""Streams whose events have a `type`: those of the Responses API, of Anthropic's Messages API, of pictures and speech.

They go to the caller as they come. What is watched is how they end, what they used, and the id of what is stored.
"""

from __future__ import annotations

from typing import Any, Final

from ai_client.contract.apis import Family
from ai_client.contract.request import Usage
from ai_client.dialects.body_reader import read_answer
from ai_client.dialects.error_answers import UpstreamMessage, read_error
from ai_client.dialects.stream_heads import HeldHeads
from ai_client.dialects.usage import drawn_of, of_pictures, searches_of, usage_from_json
from ai_client.platform.json_text import read_json, word_of

# A longer line is no event that anybody sends; what is in it is not looked at.
_LONGEST_LINE_BYTES: Final = 64 * 1024 * 1024
# Of these a caller can use nothing else: a body in the place of events is an error, or no answer to what was asked.
_EVENTS_ONLY: Final = frozenset((Family.RESPONSES, Family.ANTHROPIC))
_BODY_STARTS: Final = (b"{", b"[", b"<")
# What readers of a message wait for; before it the event ends that came last.
_MESSAGE_END: Final = b'\n\nevent: message_stop\ndata: {"type": "message_stop"}\n\n'
_CACHE_COUNTS: Final = ("cache_creation_input_tokens", "cache_read_input_tokens")
_RESPONSE_ENDS: Final = frozenset(("response.completed", "response.incomplete"))
# What a stream begins with before anything of its answer.
_HEADS: Final = {
    Family.RESPONSES: (b'"response.created"', b'"response.in_progress"'),
    Family.ANTHROPIC: (b'"message_start"',),
}
# Lines that hold none of these words are text on its way, and not worth reading.
_TELLING: Final = {
    Family.RESPONSES: (b'"response.c', b'"response.in', b'"response.failed', b'"response.queued', b"error"),
    Family.ANTHROPIC: (b'"message_start', b'"message_delta', b'"message_stop', b"error"),
    Family.MEDIA: (b'.completed"', b'.done"', b"error"),
    Family.UNKNOWN: (b'"usage"', b"error"),
}


class TypedStreamReader(HeldHeads):
    """Reads one stream, however it was cut into chunks. See `stream_reader.StreamReader`, which it stands in for.

    An error that comes before anything of the answer is kept back, so that another try may answer, and so are the
    events that only say that there will be one; a later error goes to the caller in the upstream's own words.
    """

    trouble: Final = None

    __slots__ = (
        "_body",
        "_drawn",
        "_family",
        "_has_head",
        "_has_pinged",
        "_has_stopped",
        "_is_event_stream",
        "_is_past_heads",
        "_is_picture",
        "_is_sound",
        "_kind",
        "_rest",
        "_rest_bytes",
        "_searches",
        "_telling",
        "_tier",
        "_used",
        "delta_bytes",
        "fault",
        "has_told_fault",
        "is_complete",
        "stored_id",
    )

    def __init__(
        self, family: Family, *, content_type: str = "text/event-stream", endpoint: str = ""
    ) -> None:
        self._family = family
        # Some call their events by another type, or by none.
        self._is_event_stream = family in _EVENTS_ONLY or content_type.lower().startswith("text/event-stream")
        #: Sound is passed on as it comes; what may be something else is judged when it is whole.
        self._is_sound = endpoint == "audio/speech" and not self._is_event_stream
        self._kind = content_type
        #: Where a body comes in place of events, or of sound.
        self._body: bytearray | None = None
        #: A part of the answer came, not only comments.
        self.has_begun = False
        #: The caller has the error from the upstream.
        self.has_told_fault = False
        #: Of all that was sent: at least as many as its text has.
        self.delta_bytes = 0
        self._telling = _TELLING[family]
        #: What is kept back while heads are all that came; None from then on, and where a stream has none.
        self._held: list[bytes] | None = [] if self._is_event_stream and family in _HEADS else None
        self._has_head = self._has_pinged = self._is_past_heads = False
        #: A message said why it ended, as it may without its last event.
        self._has_stopped = False
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._used: dict[str, Any] = {}
        self._tier: object = None
        self._searches = 0
        #: What pictures took that are not in `_used`; whether all of it is pictures.
        self._drawn: object = None
        self._is_picture = False
        #: Whether the last event of a whole answer came.
        self.is_complete = family is Family.UNKNOWN
        #: What the upstream said where it broke the stream off.
        self.fault: UpstreamMessage | None = None
        #: `resp_…`, of an answer that the upstream keeps.
        self.stored_id: str | None = None

    def feed(self, chunk: bytes) -> bytes:
        """What may be passed on now: all of it, but for an error at the very begin."""
        if not self.delta_bytes and self._is_body(chunk):
            self._body = bytearray()
        self.delta_bytes += len(chunk)
        if self._body is not None:
            if len(self._body) < _LONGEST_LINE_BYTES:
                self._body += chunk
            return b""
        if self._is_event_stream or self._family is not Family.MEDIA:
            self._look_through(chunk)
        if self._held is not None:
            chunk = self._past_heads(chunk)
        if not chunk or (self.fault is not None and not self.has_begun):
            return b""
        if b"data:" in chunk or not self._is_event_stream:
            self.has_begun = True
        self.has_told_fault = self.fault is not None
        return chunk

    def _is_body(self, begin: bytes) -> bool:
        first = begin.lstrip()[:1]
        if self._is_sound:
            kind = self._kind.partition(";")[0].strip().lower()
            return kind.startswith("text/") or kind.endswith("json") or first == b"{"
        return self._family in _EVENTS_ONLY and first in _BODY_STARTS

    def finish(self) -> bytes:
        """No more comes: a last line may lack its end."""
        if self._is_sound and self._body is not None:
            verdict = read_answer(bytes(self._body), {"content-type": self._kind}, "audio/speech")
            if verdict.fault is None and verdict.trouble is None:
                whole, self._body, self.has_begun = bytes(self._body), None, True
                return whole
        last = b"".join(self._rest)
        self._look_through(b"\n")
        if last.startswith((b"data:", b"event:")) and not last.endswith(b"}"):
            self._has_stopped = False  # a part of one more event, which nobody could read
        rest = self._past_heads(b"") if self._held and self.fault is None else b""
        self.has_begun = self.has_begun or bool(rest)
        self.has_told_fault = self.has_told_fault or (self.fault is not None and self.has_begun)
        if self._has_stopped and self.fault is None and not self.is_complete:
            self.is_complete = True
            return rest + _MESSAGE_END
        return rest

    def _past_heads(self, chunk: bytes) -> bytes:
        """All that came, once more came than heads; until then comments alone."""
        if self._held is None or (not self._held and chunk.startswith(b":")):
            return chunk
        self._held.append(chunk)
        if self.fault is not None or not self._is_past_heads:
            return b""
        whole, self._held = b"".join(self._held), None
        return whole

    def _note_head(self, line: bytes) -> None:
        """A second ping, or a comment, is for who waits long: nothing is kept back any more."""
        if line.startswith(b":"):
            self._is_past_heads = self._is_past_heads or self._has_head
        elif line.startswith(b"data:"):
            if any(head in line for head in _HEADS[self._family]):
                self._has_head = True
            elif b'"ping"' in line and not self._has_pinged:
                self._has_pinged = True
            else:
                self._is_past_heads = True

    @property
    def body(self) -> bytes | None:
        """What came in place of events."""
        return None if self._body is None else bytes(self._body)

    @property
    def is_broken(self) -> bool:
        """Whether nothing of it is passed on."""
        return self.fault is not None and not self.has_begun

    def has_told_all(self, *, choices: int) -> bool:
        """Whether the usage is that of the whole answer, which is one whatever `choices` says."""
        return self.is_complete

    @property
    def is_whole(self) -> bool:
        """Whether the last event of a whole answer came."""
        if self.fault is not None or self._body is not None:
            return False
        return self.is_complete or not (self._is_event_stream or (self._is_sound and not self.has_begun))

    def _look_through(self, chunk: bytes) -> None:
        if b"\n" not in chunk and b"\r" not in chunk:
            self._hold(chunk)
            return
        self._rest.append(chunk)
        lines = b"".join(self._rest).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest, self._rest_bytes = [], 0
        self._hold(lines.pop())
        for line in lines:
            if self._held is not None:
                self._note_head(line)
            if line.startswith(b"data:") and any(word in line for word in self._telling):
                self._look_at(line[5:])

    @property
    def usage(self) -> Usage | None:
        """What was used, as far as the stream told."""
        if not self._used:
            return None
        usage = usage_from_json(self._used, tier=self._tier, searches=self._searches, drawn=self._drawn)
        return of_pictures(usage, self._used) if self._is_picture else usage

    def _hold(self, piece: bytes) -> None:
        if not piece or self._rest_bytes > _LONGEST_LINE_BYTES:
            return
        self._rest.append(piece)
        self._rest_bytes += len(piece)

    def _look_at(self, data: bytes) -> None:
        try:
            event = read_json(data)
        except ValueError:
            return
        if not isinstance(event, dict):
            return
        kind = event.get("type")
        if kind in ("error", "response.error") or (kind is None and "error" in event):
            self.fault = read_error(event)
        elif self._family is Family.RESPONSES:
            self._look_at_response(kind, event.get("response"))
        elif self._family is Family.ANTHROPIC:
            self._look_at_message(kind, event)
        else:
            self.is_complete = self.is_complete or str(kind).endswith((".completed", ".done"))
            self._is_picture = self._is_picture or str(kind).startswith("image_")
            self._use(event.get("usage"))

    def _look_at_response(self, kind: object, response: object) -> None:
        if not isinstance(response, dict):
            return
        stored_id = response.get("id")
        if isinstance(stored_id, str) and response.get("store", True) is not False:
            self.stored_id = self.stored_id or stored_id
        # Who reads one of the background wants its id at once, to come back by it.
        self._is_past_heads = self._is_past_heads or bool(response.get("background"))
        self._use(response.get("usage"))
        self._tier = response.get("service_tier") or self._tier
        self._searches = max(self._searches, searches_of(response))
        self._drawn = drawn_of(response) or self._drawn
        if kind == "response.failed":
            self.fault = read_error(response)
        elif word_of(kind) in _RESPONSE_ENDS:
            self.is_complete = True

    def _look_at_message(self, kind: object, event: dict[str, Any]) -> None:
        if kind == "message_start" and isinstance(message := event.get("message"), dict):
            self._use(message.get("usage"))
        elif kind == "message_delta":
            delta = event.get("delta")
            self._has_stopped = self._has_stopped or (
                isinstance(delta, dict) and bool(delta.get("stop_reason"))
            )
            self._use_later(event.get("usage"))
        elif kind == "message_stop":
            self.is_complete = True

    def _use_later(self, usage: object) -> None:
        """Its counts are of the whole message so far, and those that it lacks stay as they were.

        Some proxies tell less of the input than before, or what is cached once more within it: then it stays, too.
        """
        if isinstance(usage, dict):
            before, later = (each.get("input_tokens") for each in (self._used, usage))
            if type(before) is int and type(later) is int and later != before:
                cached = sum(_whole(usage.get(name, self._used.get(name))) for name in _CACHE_COUNTS)
                if later + cached < before or (cached and later == before + cached):
                    usage = usage | {"input_tokens": before}
        self._use(usage)

    def _use(self, usage: object) -> None:
        if isinstance(usage, dict):
            self._used |= {name: value for name, value in usage.items() if value is not None}


def _whole(value: object) -> int:
    return value if type(value) is int else 0
