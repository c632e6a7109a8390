"""Reads a stream as it goes by: what may be passed on, whether it was whole, what went wrong, what it used.

What is an error is not passed on: whoever reads gets it as an error of ours, and nothing of the event. Events are
passed on whole and at once, but for heads (`stream_heads`): they wait for something of the answer, so that an error
behind them may be tried again. An event's usual shape is read by a typed decoder that skips its texts, which takes a
third of the time; every other shape is read in full and judged by `verdict`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ai_client.contract.request import Usage
from ai_client.dialects.error_answers import UpstreamMessage, parse_error_body
from ai_client.dialects.plain_events import (
    ABSENT,
    PlainChunk,
    are_plain,
    decode_chunk,
    decode_chunks,
    is_reason,
)
from ai_client.dialects.sse import DONE, Event, EventSplitter, parse_object, payloads
from ai_client.dialects.stream_heads import HeldHeads, is_head
from ai_client.dialects.usage import usage_from_json
from ai_client.dialects.verdict import CHOICE_ENDPOINTS, END_TYPES, fault_of
from ai_client.errors import MalformedResponseError

END_EVENT: Final = b"data: [DONE]\n\n"
# Of a body in a stream's place, as much as may matter.
_MOST_BODY_BYTES: Final = 4 * 1024 * 1024
_BODY_STARTS: Final = (b"{", b"[", b"<")
# The usage, and the end marker.
_END_EVENTS: Final = 2
# `{"content":""}` is no text; what else a delta holds beside its text only makes the bound higher.
_DELTA_FRAME_BYTES: Final = 14


class StreamReader(HeldHeads):
    """Of one stream. `hides_usage`: the caller did not ask for the event of the usage, we did."""

    #: Of typed streams: the caller has an error in the upstream's own words, and the id of what is kept.
    has_told_fault: Final = False
    stored_id: Final = None

    __slots__ = (
        "_body",
        "_finished_choices",
        "_is_done",
        "_is_kept",
        "_is_known",
        "_is_withheld",
        "_open_choices",
        "_splitter",
        "_tier",
        "_told_at_bytes",
        "_usage",
        "delta_bytes",
        "endpoint",
        "fault",
        "has_finished",
        "hides_usage",
        "is_marked",
        "trouble",
    )

    def __init__(self, *, endpoint: str = "chat/completions", hides_usage: bool = False) -> None:
        self.endpoint = endpoint
        self.hides_usage = hides_usage
        #: What went wrong, as the upstream said it.
        self.fault: UpstreamMessage | None = None
        #: What makes it no stream of events, in words.
        self.trouble: str | None = None
        #: A part of the answer came, not only comments.
        self.has_begun = False
        #: A reason came why it finished, or an event that says so.
        self.has_finished = False
        #: The end marker came as everybody knows it.
        self.is_marked = False
        #: At least as many as the text has that came.
        self.delta_bytes = 0
        self._splitter = EventSplitter()
        #: Heads, while nothing else came; None from then on.
        self._held: list[bytes] | None = []
        self._open_choices: set[int] = set()
        self._finished_choices: set[int] = set()
        self._is_done = False
        #: The last event is among the heads that wait.
        self._is_kept = False
        self._is_known = False
        #: The last event was not passed on.
        self._is_withheld = False
        #: Where the upstream sends no events but a body.
        self._body: bytearray | None = None
        self._usage: dict[str, Any] = {}
        #: How much had come when the last usage was told.
        self._told_at_bytes = -1
        self._tier = ""

    def feed(self, chunk: bytes) -> bytes:
        """What may be passed on now. Nothing more after a fault. Raises MalformedResponseError."""
        if not self._is_known:
            self._look_at(chunk)
        if self._body is not None:
            if len(self._body) < _MOST_BODY_BYTES:
                self._body += chunk
            return b""
        if self.fault is not None or self.trouble is not None:
            return b""
        return self._feed_on(chunk) if self._held is None else self._feed_first(chunk)

    def _feed_first(self, chunk: bytes) -> bytes:
        """Event by event, until something of the answer came; the rest as usual."""
        passed = b""
        while self._held is not None and chunk.startswith(b"data: {") and self._splitter.is_between_events:
            end = chunk.find(b"\n\n") + 2
            if end < 2:
                break
            passed += self._pass(self._splitter.feed(chunk[:end]))
            chunk = chunk[end:]
        return passed + self._feed_on(chunk) if chunk and not self.is_broken else passed

    def _feed_on(self, chunk: bytes) -> bytes:
        if chunk.startswith(b"data: {") and chunk.endswith(b"\n\n") and self._splitter.is_between_events:
            return self._feed_lines(chunk)
        return self._pass(self._splitter.feed(chunk))

    def _feed_lines(self, chunk: bytes) -> bytes:
        """Whole events of one line each, as most upstreams send them; from the first that is otherwise on, the rest.

        Another line in one of them makes it no JSON.
        """
        read_bytes = 0
        texts = chunk[6:-2].split(b"\n\ndata: ")
        # Before the end marker stands the usage, which is read alone.
        plain = texts[:-2] if texts[-1] == b"[DONE]" else texts
        if len(plain) > 1 and self._read_together(plain):
            read_bytes = sum(map(len, plain)) + 8 * len(plain)
            texts = texts[len(plain) :]
        for index, text in enumerate(texts):
            if not self._read_plainly(text):
                rest = self._read_end(texts[index:])
                if rest is None:
                    rest = self._pass(self._splitter.feed(chunk[read_bytes:]))
                return chunk[:read_bytes] + rest if read_bytes else rest
            read_bytes += len(text) + 8
        return chunk

    def _read_end(self, texts: list[bytes]) -> bytes | None:
        """Of the events that most streams end with, the usage if it is told and the end marker, what is passed on.

        None where they are others.
        """
        if texts[-1] != b"[DONE]" or len(texts) > _END_EVENTS or not self.has_begun:
            return None
        has_usage = len(texts) == _END_EVENTS
        if has_usage and not self._read_usage(texts[0]):
            return None
        self._is_done = self.is_marked = True
        self._is_withheld = False
        return b"data: %b\n\n%b" % (texts[0], END_EVENT) if has_usage and not self.hides_usage else END_EVENT

    def _read_usage(self, text: bytes) -> bool:
        """Whether it is an event that tells the usage, and nothing of an answer or of an error."""
        try:
            chunk = decode_chunk(text)
        except (msgspec.DecodeError, RecursionError):
            return False
        if chunk.choices or not chunk.usage or chunk.object in ("response", "error"):
            return False
        self._keep_usage(chunk.usage)
        self._tier = chunk.service_tier or self._tier
        self.delta_bytes += len(text)
        self._told_at_bytes = self.delta_bytes
        return True

    def _read_together(self, texts: list[bytes]) -> bool:
        """Several events at once, where all of them are plain: one call instead of many."""
        try:
            chunks = decode_chunks(b"[" + b",".join(texts) + b"]")
        except (msgspec.DecodeError, RecursionError):
            return False
        if len(chunks) != len(texts) or not are_plain(chunks):
            return False  # and nothing is counted: they are read one by one
        self._count(chunks)
        return True

    def finish(self) -> bytes:
        """What is left, at the stream's end; with an end marker where a whole answer had none."""
        rest = self._pass(self._splitter.rest())
        if self.is_whole and not self.is_marked and self.endpoint in CHOICE_ENDPOINTS:
            # Readers wait for it, and a recorded stream is whole by it.
            end = b"" if rest.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")) or not rest else b"\n\n"
            return rest + end + END_EVENT
        return rest

    @property
    def is_broken(self) -> bool:
        """Whether nothing more of it is passed on."""
        return self.fault is not None or self.trouble is not None

    @property
    def is_whole(self) -> bool:
        """Whether all of an answer came: something of it, and its end by a marker or by reasons to finish."""
        if self.is_broken or not self.has_begun:
            return False
        return self._is_done or (self.has_finished and not self._open_choices)

    def has_told_all(self, *, choices: int) -> bool:
        """Whether the usage is of the whole answer, of so many choices: none is open, and nothing came after it."""
        return (
            self.has_finished
            and not self._open_choices
            and not 0 < len(self._finished_choices) < choices
            and self._told_at_bytes == self.delta_bytes
        )

    @property
    def body(self) -> bytes | None:
        """What came in place of events."""
        return None if self._body is None else bytes(self._body)

    @property
    def usage(self) -> Usage | None:
        """The last usage that was told."""
        return usage_from_json(self._usage, tier=self._tier)

    def _look_at(self, chunk: bytes) -> None:
        """Whether these are events at all."""
        begin = chunk.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        if begin:
            self._is_known = True
            if begin in _BODY_STARTS:
                self._body = bytearray()

    def _pass(self, events: list[Event]) -> bytes:
        passed = []
        for event in events:
            if self.is_broken:
                break
            if event.data:
                self._is_withheld = not self._read(event)
            elif event.raw != b"\n":  # that one belongs to the event before, whose CR came alone
                self._is_withheld = False
            if self._is_withheld:
                continue
            if self._held is None:
                passed.append(event.raw)
                continue
            self._is_kept = bool(event.data) or (self._is_kept and event.raw == b"\n")
            if not self._is_kept:
                passed.append(event.raw)
                continue
            self._held.append(event.raw)
            if self.has_begun:
                passed.append(self.let_go())
        return passed[0] if len(passed) == 1 else b"".join(passed)

    def _read(self, event: Event) -> bool:
        """Whether the event is passed on."""
        data = event.data
        if len(data) == 1 and data[0][:1] == b"{" and not event.name:
            return self._read_object(data[0])
        is_passed = True
        for text in payloads(event):
            if text.lower() == DONE:
                self._is_done = True
                is_passed = self.has_begun  # the end of nothing is no answer's
                self.is_marked = self.is_marked or (text == b"[DONE]" and event.raw.lstrip()[:5] == b"data:")
            elif event.name == b"error":
                self.fault = parse_error_body(text)
                return False
            else:
                is_passed = self._read_object(text)
            if self.is_broken:
                return False
        return is_passed

    def _read_object(self, text: bytes) -> bool:
        is_passed = self._read_plainly(text) or self._read_fully(text)
        if self._held is not None and self.has_begun and is_head(parse_object(text)):
            self.has_begun = False
        return is_passed

    def _read_plainly(self, text: bytes) -> bool:
        """Whether it is an event as most are, with choices and nothing that may be an error."""
        try:
            return self._take(decode_chunk(text))
        except (msgspec.DecodeError, RecursionError):
            return False

    def _take(self, chunk: PlainChunk) -> bool:
        chunks = [chunk]
        if not are_plain(chunks):
            return False
        self._count(chunks)
        return True

    def _count(self, chunks: list[PlainChunk]) -> None:
        counted, told_at, known = 0, -1, self._open_choices
        for chunk in chunks:
            for choice in chunk.choices:
                has_finished = choice.finish_reason is not None and is_reason(choice.finish_reason)
                if has_finished or choice.index not in known:
                    self._note_choice(choice.index, is_finished=has_finished)
                if choice.delta is ABSENT:
                    counted += len(choice.text)
                elif (delta_bytes := len(choice.delta)) > _DELTA_FRAME_BYTES:
                    counted += delta_bytes - _DELTA_FRAME_BYTES
            if chunk.usage:
                self._keep_usage(chunk.usage)
                told_at = self.delta_bytes + counted
            if chunk.service_tier:
                self._tier = chunk.service_tier
        if told_at >= 0:
            self._told_at_bytes = told_at
        self.delta_bytes += counted
        self.has_begun = True

    def _read_fully(self, text: bytes) -> bool:
        try:
            value = parse_object(text)
        except MalformedResponseError as error:
            self.trouble = error.reason
            return False
        self.fault = fault_of(value)
        if self.fault is not None:
            return False
        choices = value.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self.has_begun = True
                self._note_choice(
                    choice.get("index") or 0, is_finished=is_reason(choice.get("finish_reason"))
                )
        kind = value.get("type")
        if isinstance(kind, str):
            self.has_begun = True
            self.has_finished = self.has_finished or kind in END_TYPES
        if isinstance(tier := value.get("service_tier"), str):
            self._tier = tier
        self.delta_bytes += len(text)
        told = _usages_in(value)
        for usage in told:
            self._keep_usage(usage)
            self._told_at_bytes = self.delta_bytes
        return not (self.hides_usage and told and not choices and kind is None)

    def _note_choice(self, index: object, *, is_finished: bool) -> None:
        if not isinstance(index, int):
            index = 0
        if is_finished:
            self.has_finished = True
            self._open_choices.discard(index)
            self._finished_choices.add(index)
        elif index not in self._finished_choices:
            self._open_choices.add(index)

    def _keep_usage(self, usage: dict[str, Any]) -> None:
        """Later counts replace earlier ones; Anthropic tells the input first and the output last."""
        self._usage.update({name: value for name, value in usage.items() if value is not None})


def is_whole_stream(body: bytes) -> bool:
    """Whether the text of a stream is an answer from begin to end, with its end marker."""
    reader = StreamReader()
    try:
        reader.feed(body)
        reader.finish()
    except MalformedResponseError:
        return False
    return reader.is_whole and reader.is_marked


def _usages_in(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Wherever a provider writes it: at the top, in a choice (Moonshot), `x_groq`, Anthropic's message, a response."""
    places: list[Any] = [value, value.get("x_groq"), value.get("message"), value.get("response")]
    choices = value.get("choices")
    places += choices if isinstance(choices, list) else []
    usages = [place.get("usage") for place in places if isinstance(place, dict)]
    usages.append(value.get("usageMetadata"))
    return [usage for usage in usages if isinstance(usage, dict) and usage]
