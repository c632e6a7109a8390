"""One request and its answer on a connection, as ASGI wants it: `receive` and `send`."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from ai_client.gateway.asgi import Message, Scope

if TYPE_CHECKING:
    from ai_client.gateway.protocol import GatewayProtocol

# Above this much of a body that nobody has taken, the sender is made to wait.
HIGH_WATER_BYTES = 256 * 1024

_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
# What would end a header line or begin another.
_UNSAFE = re.compile(rb"[\r\n\0]")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Exchange:
    """Owned by the task that answers; the protocol puts the body in.

    Invariant: at most one of `_body` and `_waiter` holds something.
    """

    __slots__ = (
        "_body",
        "_body_ended",
        "_is_chunked",
        "_left",
        "_protocol",
        "_waiter",
        "is_complete",
        "is_head",
        "is_lost",
        "keep_alive",
        "scope",
        "wants_continue",
    )

    def __init__(
        self, protocol: GatewayProtocol, scope: Scope, *, keep_alive: bool, wants_continue: bool
    ) -> None:
        self._protocol = protocol
        self.scope = scope
        self.keep_alive = keep_alive
        self.wants_continue = wants_continue
        self.is_head = scope["method"] == "HEAD"
        self.is_complete = False
        self.is_lost = False
        self._body = bytearray()
        self._body_ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._left: int | None = None
        self._is_chunked = False

    @property
    def has_begun(self) -> bool:
        """The head of the answer is out."""
        return self._left is not None or self._is_chunked

    def feed(self, data: bytes) -> bool:
        """A piece of the body; whether the sender should wait now."""
        self._body += data
        self._wake()
        return len(self._body) > HIGH_WATER_BYTES

    def end_body(self) -> None:
        """There is no more of it."""
        self._body_ended = True
        self._wake()

    def lose(self) -> None:
        """The connection is gone."""
        self.is_lost = True
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def receive(self) -> Message:
        """What has come of the body, waiting for something to come; `http.disconnect` after the end."""
        if not self._body and not self._body_ended and not self.is_lost:
            if self.wants_continue:
                self.wants_continue = False
                self._protocol.write(_CONTINUE)
            self._protocol.resume_sender()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
        if self.is_lost or self.is_complete:
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        return {"type": "http.request", "body": body, "more_body": not self._body_ended}

    async def send(self, message: Message) -> None:
        """A part of the answer. A whole answer goes out in one write."""
        protocol = self._protocol
        if protocol.is_write_paused:
            await protocol.writable()
        if self.is_lost or self.is_complete:
            return
        if message["type"] == "http.response.start":
            self._start(message["status"], message["headers"])
            return
        self._send_body(message.get("body", b""), more=message.get("more_body", False))

    def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        given = dict(headers)
        if b"connection" in given:
            # Written below, as the connection alone knows whether it stays.
            self.keep_alive = self.keep_alive and given[b"connection"] != b"close"
            headers = [header for header in headers if header[0] != b"connection"]
        lines = [b"%b: %b" % header for header in headers]
        length = given.get(b"content-length")
        if length is not None:
            self._left = int(length)
        else:
            self._is_chunked = self.scope["http_version"] != "1.0"
            if self._is_chunked:
                lines.append(b"transfer-encoding: chunked")
            else:
                self.keep_alive = False
                self._left = -1
        if not self.keep_alive:
            lines.append(b"connection: close")
        head = b"%b%b%b\r\n\r\n" % (_STATUS[status], self._protocol.date_header(), _joined(lines))
        if self._left is None or self._left < 0:
            # Of a stream the head may be all that there is for long.
            self._protocol.write_soon(head)
        else:
            self._protocol.hold(head)

    def _send_body(self, body: bytes, *, more: bool) -> None:
        protocol = self._protocol
        if self.is_head:
            protocol.write(b"")
        elif self._is_chunked:
            piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if more:
                protocol.write_soon(piece)
            else:
                protocol.write(piece + b"0\r\n\r\n")
        elif more:
            protocol.write_soon(body)
        else:
            protocol.write(body)
        if not more:
            self.is_complete = True
            self._wake()
            protocol.answered(self)


def _joined(lines: list[bytes]) -> bytes:
    """The lines as they go out; in one that would break out of itself the characters that do it become `?`."""
    text = b"\r\n".join(lines)
    ends = max(0, len(lines) - 1)
    if text.count(b"\n") == ends and text.count(b"\r") == ends and b"\0" not in text:
        return text
    return b"\r\n".join([_UNSAFE.sub(b"?", line) for line in lines])
