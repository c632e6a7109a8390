"""A small HTTP/1.1 server over httptools, with the control over a connection that faults need.

It resets, stalls and dribbles on demand, which no ordinary server lets its handlers do, and costs so little that a
bench measures the client and not the simulator.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus

import httptools

_LINGER_NONE = struct.pack("ii", 1, 0)
_REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(slots=True)
class ReceivedRequest:
    """One request as it came in; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


class Responder:
    """Writes one answer: whole with `send`, or in pieces with `start`, `chunk` and `end`."""

    def __init__(self, transport: asyncio.Transport, *, keep_alive: bool) -> None:
        self._transport = transport
        self._keep_alive = keep_alive
        self.status = 0

    def _head(self, status: int, headers: list[tuple[str, str]], framing: str) -> bytes:
        self.status = status
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}", framing]
        lines += [f"{name}: {value}" for name, value in headers]
        if not self._keep_alive:
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """A whole answer in one write."""
        self._transport.write(self._head(status, headers, f"content-length: {len(body)}") + body)
        self._finish()

    def start(self, status: int, headers: list[tuple[str, str]]) -> None:
        """The head of a chunked answer."""
        self._transport.write(self._head(status, headers, "transfer-encoding: chunked"))

    def chunk(self, data: bytes) -> None:
        """One chunk of it."""
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """The last chunk."""
        self._transport.write(b"0\r\n\r\n")
        self._finish()

    def raw(self, data: bytes) -> None:
        """Bytes as they are, for answers that are no HTTP."""
        self._transport.write(data)

    def close(self) -> None:
        """End the connection in an orderly way, wherever the answer stands."""
        self._keep_alive = False
        self._transport.close()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self._keep_alive = False
        sock = self._transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        self._transport.abort()

    def _finish(self) -> None:
        if not self._keep_alive:
            self._transport.close()


Handler = Callable[[ReceivedRequest, Responder], Awaitable[None]]


@dataclass(slots=True)
class WireState:
    """What the connections of one server share."""

    handler: Handler
    connections: set[WireProtocol] = field(default_factory=set)
    accepted: int = 0


class WireProtocol(asyncio.Protocol):
    """One connection: requests are answered one after another, in order."""

    def __init__(self, state: WireState) -> None:
        self._state = state
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[ReceivedRequest] = deque()
        self._task: asyncio.Task[None] | None = None
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        if not isinstance(transport, asyncio.Transport):
            # uvloop's transports are no subclasses; they have the same methods.
            self._transport = transport  # type: ignore[assignment]
        else:
            self._transport = transport
        self._state.accepted += 1
        self._state.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop; the running handler is cancelled, as its reader is gone."""
        self._state.connections.discard(self)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.close()

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._target, self._headers, self._body = b"", {}, bytearray()

    def on_url(self, url: bytes) -> None:
        """Called by the parser, perhaps in pieces."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Called by the parser, perhaps in pieces."""
        self._body += body

    def on_message_complete(self) -> None:
        """Called by the parser."""
        method = self._parser.get_method().decode("latin-1")
        keep_alive = self._parser.should_keep_alive()
        target = self._target.decode("latin-1")
        self._waiting.append(ReceivedRequest(method, target, self._headers, bytes(self._body), keep_alive))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._answer())

    async def _answer(self) -> None:
        try:
            while self._waiting and self._transport is not None:
                request = self._waiting.popleft()
                await self._state.handler(request, Responder(self._transport, keep_alive=request.keep_alive))
        finally:
            self._task = None

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()
