"""One connection: aiohttp's, with what a gateway needs that anybody on the host can reach.

Beside aiohttp's work it knows the caller's uid, bounds how long a request may take to arrive and how long an answer
may stay unread, and answers faults as the rest of the gateway does.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from typing import Any

from aiohttp import StreamReader, http_exceptions, web

from ai_client.gateway.http.asgi import UID_MARK, error_body
from ai_client.gateway.http.crowd import caller_of
from ai_client.gateway.http.shared import Shared

MAX_LINE_BYTES = 16 * 1024
MAX_HEADERS = 128
# For the rest of a body that was refused, so that the caller gets to read why.
LINGER_S = 2.0

_PEERCRED = struct.Struct("3i")
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

_TOO_MANY_BODY = error_body(
    kind="overloaded_error",
    code="too_many_connections",
    message="All connections that a caller may have here are being answered; close some, or send again.",
)
_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    + f"content-length: {len(_TOO_MANY_BODY)}\r\n\r\n".encode()
    + _TOO_MANY_BODY
)

_log = logging.getLogger(__name__)


class Connection(web.RequestHandler):
    """Invariant: `arriving_since_s` is None exactly while a request is being answered, or nothing has come since."""

    __slots__ = (
        "_content",
        "_shared",
        "arriving_since_s",
        "caller",
        "client",
        "is_admitted",
        "request_began_s",
        "unread_since_s",
    )

    def __init__(self, server: web.Server, shared: Shared, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=shared.bounds.idle_s,
            access_log=None,  # type: ignore[arg-type]  # aiohttp means none by it
            logger=_log,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
            lingering_time=LINGER_S,
            auto_decompress=False,
        )
        self._shared = shared
        #: (UID_MARK, uid) on a Unix socket, (address, port) else.
        self.client: tuple[str, int] | None = None
        #: By whom connections are counted.
        self.caller: object = None
        #: When the first byte of a request came whose head is not there yet.
        self.arriving_since_s: float | None = None
        #: When the caller began not to read what is written to it.
        self.unread_since_s: float | None = None
        self.request_began_s = 0.0
        #: Whether it counts among those that its server takes.
        self.is_admitted = False
        self._content: StreamReader | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self.client = _peer(transport)
        self.caller = caller_of(self.client)
        self.arriving_since_s = self._loop.time()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._content is None:
            if self.arriving_since_s is None:
                self.arriving_since_s = self._loop.time()
            super().data_received(data)
            return
        super().data_received(data)
        if self._messages and not self._content.is_eof() and self._content.exception() is None:
            # Behind a body that has not ended no request can be found: it is the parser's error with that body, of
            # which aiohttp would not tell whoever reads it.
            self._content.set_exception(web.RequestPayloadError("the body breaks its framing"))

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Called by aiohttp after each body, also where nothing was paused: then nothing was held back."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def pause_writing(self) -> None:
        """Called by the loop: the caller reads more slowly than it is written to."""
        self.unread_since_s = self._loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Called by the loop."""
        self.unread_since_s = None
        super().resume_writing()

    @property
    def unread_bytes(self) -> int:
        """Of what was written to it, what its caller has not taken."""
        transport = self.transport
        return 0 if transport is None else transport.get_write_buffer_size()

    def send_away(self) -> None:
        """There is no place for it."""
        transport = self.transport
        if transport is not None:
            transport.write(_TOO_MANY)
            self.force_close()

    def leave_idle(self) -> None:
        """Make room for another one."""
        self.is_admitted = False
        self.force_close()

    def give_up(self) -> None:
        """Its caller takes nothing, and others need the memory."""
        if self.transport is not None:
            self.transport.abort()

    @property
    def is_answering(self) -> bool:
        """Whether a request of this connection is being answered."""
        return self._content is not None

    def begin(self, content: StreamReader) -> None:
        """A request's head is there, and its body comes."""
        self._content = content
        self.request_began_s = self._loop.time()
        self.arriving_since_s = None

    def end(self) -> None:
        """Its answer is out."""
        self._content = None

    def soon(self, act: Callable[[], None]) -> None:
        """Calls it when the tasks that run now wait for something."""
        self._loop.call_soon(act)

    def common_headers(self) -> dict[str, str]:
        """Those that every answer has."""
        return self._shared.common_headers

    def error(self, status: int, *, kind: str, code: str, message: str) -> web.Response:
        """An answer that ends the connection."""
        body = error_body(kind=kind, code=code, message=message)
        headers = {**self.common_headers(), "content-type": "application/json"}
        response = web.Response(status=status, body=body, headers=headers)
        response.force_close()
        return response

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called by aiohttp: for bytes that are no request, and for faults of ours, which are counted and logged."""
        if isinstance(exc, http_exceptions.HttpProcessingError):
            if isinstance(exc, http_exceptions.LineTooLong):
                status = 431
            kind, code, text = "invalid_request_error", "bad_request", "This is not a valid HTTP request."
        else:
            self._shared.faults += 1
            _log.error("request_failed", exc_info=exc)
            kind, code, text = "server_error", "internal_error", "The service failed; see its log."
        if request.writer.output_size > 0:
            raise ConnectionResetError("an answer had begun: it breaks off")
        return self.error(status, kind=kind, code=code, message=text)

    def close_if_too_slow(self, *, now_s: float, arrival_s: float, unread_s: float) -> None:
        """Ends it where a head has been arriving for longer than `arrival_s`, or an answer unread for `unread_s`."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self.unread_since_s is not None and now_s - self.unread_since_s > unread_s:
            # What is in its buffer will never be taken: closing would wait for that.
            transport.abort()
        elif self.arriving_since_s is not None and now_s - self.arriving_since_s > arrival_s:
            transport.write(_TOO_SLOW)
            self.force_close()


def _peer(transport: asyncio.BaseTransport) -> tuple[str, int] | None:
    sock: Any = transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
        return UID_MARK, _PEERCRED.unpack(credentials)[1]
    peer = transport.get_extra_info("peername")
    return (str(peer[0]), int(peer[1])) if peer else None
