"""HTTP/1.1 on httptools, as much of it as a gateway needs, with what one needs that anybody on the host can reach.

Beside an ordinary server's work it knows the caller's uid, bounds heads and the time that a request may take to
arrive, cancels what nobody waits for any more, and writes a whole answer at once.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import httptools

from ai_client.gateway.asgi import Receive, Scope, Send
from ai_client.gateway.callers import UID_MARK
from ai_client.gateway.exchange import Exchange

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 128
# Requests that one connection may send before the first of them is answered.
MAX_PIPELINED = 16

_PEERCRED = struct.Struct("3i")
_CLOSE = b"content-length: 0\r\nconnection: close\r\n\r\n"
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\n" + _CLOSE
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\n" + _CLOSE
_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\n" + _CLOSE
_FAILED = b"HTTP/1.1 500 Internal Server Error\r\n" + _CLOSE

_log = logging.getLogger(__name__)

App = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]


class Connections:
    """What the connections of one server share."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.open: set[GatewayProtocol] = set()
        self.all_closed = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self.date_header = b""
        #: Requests that a fault of ours ended.
        self.faults = 0

    def add(self, connection: GatewayProtocol) -> None:
        """It is open."""
        self.open.add(connection)
        self.all_closed.clear()

    def remove(self, connection: GatewayProtocol) -> None:
        """It is closed, and what was written to it has left this process or is lost."""
        self.open.discard(connection)
        if not self.open:
            self.all_closed.set()


class GatewayProtocol(asyncio.Protocol):
    """One connection.

    Invariant: `receiving_since_s` is None exactly while no part of a request is outstanding.
    """

    def __init__(self, connections: Connections, loop: asyncio.AbstractEventLoop) -> None:
        self._connections = connections
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._client: tuple[str, int] | None = None
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._wants_continue = False
        self._head_bytes = 0
        self._is_refused = False
        self._current: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: deque[Exchange] = deque()
        self._receiving: Exchange | None = None
        self._held: list[bytes] = []
        self._is_flush_due = False
        self._is_reading = True
        self._writable: asyncio.Future[None] | None = None
        self.transport: Any = None
        self.is_write_paused = False
        self.receiving_since_s: float | None = None
        self.idle_since_s: float | None = None

    @property
    def is_answering(self) -> bool:
        """Whether a request of this connection is being answered."""
        return self._task is not None and not self._task.done()

    # The loop's callbacks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self.transport = transport
        self._connections.add(self)
        self.receiving_since_s = self._loop.time()
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family == socket.AF_UNIX:
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
            self._client = (UID_MARK, _PEERCRED.unpack(credentials)[1])
        else:
            peer = transport.get_extra_info("peername")
            self._client = (str(peer[0]), int(peer[1])) if peer else None

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop. The request under way is cancelled: nobody waits for its answer."""
        self._connections.remove(self)
        self.receiving_since_s = self.idle_since_s = None
        self._waiting.clear()
        self.resume_writing()
        if self._current is not None:
            self._current.lose()
        if self._task is not None and self.is_answering:
            self._task.cancel()
        # A reference to a finished task keeps its whole frame alive.
        self._task = self._current = self._receiving = None

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._is_refused:
            return
        self.idle_since_s = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(_BAD_REQUEST)
        except httptools.HttpParserError:
            self._refuse(_BAD_REQUEST)

    def pause_writing(self) -> None:
        """Called by the loop: the caller reads more slowly than it is written to."""
        self.is_write_paused = True

    def resume_writing(self) -> None:
        """Called by the loop."""
        self.is_write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._url = b""
        self._headers = []
        self._wants_continue = False
        self._head_bytes = 0
        self.receiving_since_s = self._loop.time()

    def on_url(self, url: bytes) -> None:
        """Called by the parser, perhaps in pieces."""
        self._url += url
        self._head_bytes += len(url)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(_HEAD_TOO_LARGE)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES or len(self._headers) >= MAX_HEADERS:
            self._refuse(_HEAD_TOO_LARGE)
            return
        name = name.lower()
        if name == b"expect":
            self._wants_continue = value.lower() == b"100-continue"
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Called by the parser. A target with a host of its own would make the check of Host worthless."""
        if self._is_refused:
            return
        parser = self._parser
        if not self._url.startswith(b"/") or parser.should_upgrade():
            self._refuse(_BAD_REQUEST)
            return
        raw_path, _, query = self._url.partition(b"?")
        version = parser.get_http_version()
        scope: Scope = {
            "type": "http",
            "http_version": version,
            "method": parser.get_method().decode("latin-1"),
            "path": raw_path.decode("latin-1"),
            "query_string": query,
            "headers": self._headers,
            "client": self._client,
        }
        keep_alive = version != "1.0" and parser.should_keep_alive()
        exchange = Exchange(self, scope, keep_alive=keep_alive, wants_continue=self._wants_continue)
        self._receiving = exchange
        if self._current is None:
            self._answer(exchange)
        elif len(self._waiting) < MAX_PIPELINED:
            self._waiting.append(exchange)
        else:
            self._refuse(_BAD_REQUEST)

    def on_body(self, body: bytes) -> None:
        """Called by the parser, perhaps in pieces."""
        receiving = self._receiving
        if receiving is not None and not receiving.is_complete and receiving.feed(body) and self._is_reading:
            self._is_reading = False
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self.receiving_since_s = None
        if self._receiving is not None:
            self._receiving.end_body()
            self._receiving = None

    # What an exchange needs.

    def write(self, data: bytes) -> None:
        """Write now, what was held back first."""
        if self._held:
            self._held.append(data)
            data = b"".join(self._held)
            self._held.clear()
        if data:
            self.transport.write(data)

    def hold(self, data: bytes) -> None:
        """Keep it until more comes, which must."""
        self._held.append(data)

    def write_soon(self, data: bytes) -> None:
        """Write at the end of this turn of the loop, with all that comes until then: a system call costs more than
        turning once, and pieces of a stream often come several at a time."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def _flush(self) -> None:
        self._is_flush_due = False
        if not self.transport.is_closing():
            self.write(b"")
        self._held.clear()

    def date_header(self) -> bytes:
        """That of this second."""
        return self._connections.date_header

    async def writable(self) -> None:
        """Wait until the caller has read enough."""
        if self._writable is None:
            self._writable = self._loop.create_future()
        await asyncio.shield(self._writable)

    def resume_sender(self) -> None:
        """Read on, where reading was paused."""
        if not self._is_reading and not self.transport.is_closing():
            self._is_reading = True
            self.transport.resume_reading()

    def answered(self, exchange: Exchange) -> None:
        """The answer is out: the next request, or the end of the connection.

        A body that has not come whole yet can't be told from the next request's head any more: then it is the end, too.
        """
        self._current = self._task = None
        if not exchange.keep_alive or self._receiving is exchange:
            self.transport.close()
        elif self._waiting:
            self._answer(self._waiting.popleft())
        else:
            self.idle_since_s = self._loop.time()
            self.resume_sender()

    def _answer(self, exchange: Exchange) -> None:
        self._current = exchange
        connections = self._connections
        task = self._loop.create_task(connections.app(exchange.scope, exchange.receive, exchange.send))
        connections.tasks.add(task)
        task.add_done_callback(self._ended)
        self._task = task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A fault of ours in one request ends that request alone."""
        self._connections.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._connections.faults += 1
            _log.error("request_failed", exc_info=error)
        exchange = self._current
        if task is not self._task or exchange is None or self.transport.is_closing():
            return
        # The task is done, and its answer is not.
        if not exchange.has_begun:
            self.transport.write(_FAILED)
        self.transport.close()

    def _refuse(self, answer: bytes) -> None:
        # From here on no byte of this connection is looked at.
        self._is_refused = True
        self.receiving_since_s = None
        if not self.transport.is_closing():
            if self._current is None or not self._current.has_begun:
                self.transport.write(answer)
            self.transport.close()

    # What the server does from time to time.

    def close_if_too_slow(self, *, now_s: float, arrival_s: float, idle_s: float) -> None:
        """Ends it where a request has been arriving for longer than `arrival_s`, or nothing for `idle_s`."""
        if self.transport.is_closing():
            return
        if self.receiving_since_s is not None and now_s - self.receiving_since_s > arrival_s:
            self._refuse(_TOO_SLOW)
        elif self.idle_since_s is not None and now_s - self.idle_since_s > idle_s:
            self.transport.close()
