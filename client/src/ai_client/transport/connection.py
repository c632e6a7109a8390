"""One HTTP/1.1 connection to an upstream, on httptools: one request at a time, and nothing that was not asked for.

Every doubt about where an answer ends costs the connection: it is kept only where the parser saw a whole answer,
nothing after it, and the whole request was written. Bytes that come while nobody asks close it.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, cast

import httptools

from ai_client.errors import (
    AIClientError,
    ConnectionLostError,
    MalformedResponseError,
    TransportTimeoutError,
)
from ai_client.transport.decompression import unpacker_for
from ai_client.transport.wire_exchange import WireExchange

# What may come without bringing an answer further: heads, 1xx answers, chunk extensions, trailers.
_MOST_FRUITLESS_BYTES: Final = 64 * 1024
# Of a stream that nobody reads; one read of the loop may go beyond it.
_MOST_BUFFERED_BYTES: Final = 64 * 1024
# Of each answer, however much others take.
_TIMER_SLACK_S: Final = 0.002
_IDLE: Final = re.compile(r"timeout\s*=\s*(\d{1,6})", re.IGNORECASE)
_WITHOUT_BODY: Final = frozenset((204, 304))


class HttpConnection(asyncio.Protocol):
    """See the module. Made by the dialer; `on_idle` and `on_lost` tell the transport's pool.

    Invariant: one timer at most, set no later than `_deadline_s`. It is not moved with each request: where it fires
    early it is set anew, which is seldom.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_idle: Callable[[HttpConnection], None],
        on_lost: Callable[[HttpConnection], None],
    ) -> None:
        self.is_closed = False
        #: How long its server keeps it idle, where it said so (`Keep-Alive: timeout=5`).
        self.told_idle_s: float | None = None
        self._loop = loop
        self._on_idle = on_idle
        self._on_lost = on_lost
        #: Of the body, what came with the bytes that are being read; the list's own method is what the parser calls.
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._exchange: WireExchange | None = None
        self._head: dict[str, str] = {}
        self._is_in_head = self._is_interim = self._is_answered = self._is_stray = False
        self._can_stay = self._ends_by_close = self._is_paused = False
        self._trouble: AIClientError | None = None
        #: How many of the pieces are the answer's, once it is whole.
        self._body_pieces: int | None = None
        self._fruitless_bytes = 0
        self._unwritten_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = self._deadline_s = math.inf

    # What the transport calls.

    def begin(self, exchange: WireExchange, data: bytes) -> None:
        """Writes a request, whole. Its answer goes to `exchange`."""
        self._exchange = exchange
        exchange.connection = self
        exchange.is_resendable = self.told_idle_s is not None
        self._is_answered = self._ends_by_close = False
        self._body_pieces = None
        self._fruitless_bytes = 0
        self._watch(exchange.timeouts.headers_s)
        self._transport.write(data)
        self._unwritten_bytes = self._transport.get_write_buffer_size()

    def keep(self, expiry_s: float) -> None:
        """It is idle; closed in `expiry_s` unless it is used before."""
        self._watch(expiry_s)

    def resume(self) -> None:
        """The reader wants more."""
        if self._is_paused and self._exchange is not None:
            self._is_paused = False
            self._transport.resume_reading()
            self._watch(self._exchange.timeouts.read_s)

    def close(self) -> None:
        """Ends an idle connection in order."""
        self._exchange = None
        self.is_closed = True
        self._transport.close()

    def end(self) -> None:
        """The transport is closed; whoever waits for an answer is told so."""
        exchange = self._exchange
        if exchange is None:
            self.close()
        else:
            self.drop(ConnectionLostError(exchange.host, "the transport was closed", sent=True))

    def drop(self, error: AIClientError | None = None) -> None:
        """Ends it at once; whoever waits for its answer gets `error`."""
        if not self.is_closed:
            self.is_closed = True
            self._transport.abort()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.connection = None
            exchange.error = error
            exchange.wake()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        exchange = self._exchange
        if exchange is None or self._parser is None:
            self.drop()
            return
        exchange.has_heard = True
        self._fruitless_bytes += len(data)
        self._feed(exchange, self._parser, data)
        if self._pieces:
            self._take_body(exchange)
        if self._trouble is not None:
            self.drop(self._trouble)
        elif self._is_answered:
            self._finish(exchange)
        elif self._fruitless_bytes > _MOST_FRUITLESS_BYTES:
            self.drop(_malformed(exchange, f"over {_MOST_FRUITLESS_BYTES} bytes of headers or trailers"))
        elif exchange.status:
            self._go_on(exchange)

    def _feed(self, exchange: WireExchange, parser: httptools.HttpResponseParser, data: bytes) -> None:
        try:
            parser.feed_data(data)
        except httptools.HttpParserError as error:
            # What comes after a whole answer does not spoil it, only the connection.
            self._is_stray = True
            if not self._is_answered:
                self._trouble = _malformed(exchange, str(error))
        except httptools.HttpParserUpgrade:
            self._trouble = _malformed(exchange, "it changed to a protocol that nobody asked for")

    def _take_body(self, exchange: WireExchange) -> None:
        """What came of the body, without what came behind its end."""
        pieces = self._pieces if self._body_pieces is None else self._pieces[: self._body_pieces]
        count = sum(map(len, pieces))
        if count:
            self._fruitless_bytes = 0
            exchange.pieces += pieces
            exchange.buffered_bytes += count
            trouble = exchange.room.take(count, of_bytes=exchange.buffered_bytes, host=exchange.host)
            if trouble is not None:
                self._trouble = trouble
        self._pieces.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.is_closed = True
        self._watch(math.inf)
        exchange = self._exchange
        if exchange is not None and exc is None and self._ends_by_close:
            self._finish(exchange)
        elif exchange is not None:
            self.drop(ConnectionLostError(exchange.host, _why(exc, exchange), sent=True))
        self._on_lost(self)
        self._parser = None  # the parser and its callbacks hold each other

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._head = {}
        self._is_in_head = True
        self._is_stray = self._is_answered

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, for trailers too, which nobody reads."""
        if self._is_in_head:
            self._head[_name_of(name)] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._is_in_head = False
        exchange, parser = self._exchange, self._parser
        if self._is_stray or exchange is None or parser is None:
            return
        status = parser.get_status_code()
        self._is_interim = status < 200
        if self._is_interim:
            return
        head = self._head
        self._fruitless_bytes = 0
        if (kept := head.get("keep-alive")) is not None and (told := _IDLE.search(kept)) is not None:
            self.told_idle_s = float(told[1])
        coding = head.get("transfer-encoding")
        self._ends_by_close = coding is None and "content-length" not in head and status not in _WITHOUT_BODY
        if coding is not None and coding.lower() != "chunked":
            self._trouble = _malformed(exchange, f"transfer-encoding {coding!r} was not asked for")
        elif (packing := head.get("content-encoding")) is not None:
            try:
                exchange.unpacker = unpacker_for(packing, exchange.host)
            except MalformedResponseError as error:
                self._trouble = error
        exchange.headers = head
        exchange.status = status

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._is_interim or self._is_stray or self._parser is None:
            return
        self._is_answered = True
        self._body_pieces = len(self._pieces)
        self._can_stay = self._parser.should_keep_alive()

    def _finish(self, exchange: WireExchange) -> None:
        """The answer is whole: it is the reader's, and the connection free, or not to be trusted any more."""
        self._exchange = exchange.connection = None
        exchange.is_whole = True
        if (
            self._can_stay
            and not self._is_stray
            and not self.is_closed
            and not self._transport.is_closing()
            and self._transport.get_write_buffer_size() == 0
        ):
            if self._is_paused:
                self._is_paused = False
                self._transport.resume_reading()
            self._on_idle(self)
        elif not self.is_closed:
            self.close()
        exchange.wake()

    def _go_on(self, exchange: WireExchange) -> None:
        """A part of the answer came."""
        if exchange.is_stream:
            exchange.wake()
            if exchange.buffered_bytes > _MOST_BUFFERED_BYTES:
                self._is_paused = True
                self._transport.pause_reading()
                self._deadline_s = math.inf  # from now on it is the reader who is slow
                return
        self._watch(exchange.timeouts.read_s)

    def _watch(self, seconds: float) -> None:
        """Something has to happen within so many seconds."""
        self._deadline_s = deadline_s = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer_at_s <= deadline_s != math.inf:
                return
            self._timer.cancel()
            self._timer = None
        if deadline_s != math.inf:
            self._timer_at_s = deadline_s
            self._timer = self._loop.call_at(deadline_s, self._check)

    def _check(self) -> None:
        self._timer = None
        if self.is_closed or self._deadline_s == math.inf:
            return
        left_s = self._deadline_s - self._loop.time()
        exchange = self._exchange
        if left_s > _TIMER_SLACK_S:
            self._watch(left_s)
        elif exchange is None:
            self.close()
        elif exchange.status:
            self.drop(_timeout(exchange, "read", exchange.timeouts.read_s))
        elif self._transport.get_write_buffer_size() < self._unwritten_bytes:
            # A large request is still going out: no answer can be expected yet.
            self._unwritten_bytes = self._transport.get_write_buffer_size()
            self._watch(exchange.timeouts.headers_s)
        else:
            self.drop(_timeout(exchange, "headers", exchange.timeouts.headers_s))


@lru_cache(maxsize=256)
def _name_of(name: bytes) -> str:
    """Of a header; upstreams send the same few in every answer."""
    return name.decode("latin-1").lower()


def _timeout(exchange: WireExchange, phase: str, timeout_s: float) -> TransportTimeoutError:
    return TransportTimeoutError(exchange.host, phase=phase, timeout_s=timeout_s, sent=True)


def _malformed(exchange: WireExchange, why: str) -> MalformedResponseError:
    return MalformedResponseError(exchange.host, f"did not answer in HTTP: {why}")


def _why(error: Exception | None, exchange: WireExchange) -> str:
    if error is not None:
        return str(error) or type(error).__name__
    if exchange.status:
        return "the connection ended before the answer was whole"
    return "the connection was closed before an answer came"
