"""Uvicorn's httptools protocol with what a gateway that anybody on the host can reach needs beside it."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ai_client.gateway.callers import UID_MARK

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 128

_PEERCRED = struct.Struct("3i")
_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)
_BAD_TARGET = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class GatewayProtocol(HttpToolsProtocol):
    """Adds the caller's uid, bounds on heads and on the time to send a request, and cancels what nobody awaits.

    Invariant: `receiving_since_s` is None exactly while no part of a request is outstanding.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.receiving_since_s: float | None = None
        self._head_bytes = 0
        self._running: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by the loop."""
        super().connection_made(transport)
        self.receiving_since_s = self.loop.time()
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family == socket.AF_UNIX:
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
            self.client = (UID_MARK, _PEERCRED.unpack(credentials)[1])

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop. The request under way is cancelled: nobody waits for its answer."""
        super().connection_lost(exc)
        self.receiving_since_s = None
        if self._running is not None and not self._running.done():
            self._running.cancel()
        # A reference to a finished task keeps its whole frame alive.
        self._running = None

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._head_bytes > MAX_HEAD_BYTES:
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Called by the parser."""
        super().on_message_begin()
        self._head_bytes = 0
        self.receiving_since_s = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """Called by the parser, perhaps in pieces."""
        self._head_bytes += len(url)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(_HEAD_TOO_LARGE)
            return
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES or len(self.headers) >= MAX_HEADERS:
            self._refuse(_HEAD_TOO_LARGE)
            return
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Called by the parser. A target with a host of its own would make the check of Host worthless."""
        if self._head_bytes > MAX_HEAD_BYTES:
            return
        if not self.url.startswith(b"/"):
            self._refuse(_BAD_TARGET)
            return
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self.receiving_since_s = None
        if self._head_bytes <= MAX_HEAD_BYTES:
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)
        self._running = task

    def _refuse(self, answer: bytes) -> None:
        # From here on no byte of this connection is looked at.
        self._head_bytes = MAX_HEAD_BYTES + 1
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()

    def close_if_too_slow(self, *, now_s: float, limit_s: float) -> bool:
        """Ends the connection where a request has been arriving for longer than `limit_s`."""
        since_s = self.receiving_since_s
        if since_s is None or now_s - since_s <= limit_s or self.transport.is_closing():
            return False
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or not cycle.response_started:
            self.transport.write(_TOO_SLOW)
        self.transport.close()
        return True
