"""One request and its answer as ASGI wants them, over aiohttp's: `scope`, `receive` and `send`."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from http import HTTPStatus
from itertools import chain
from typing import cast

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter
from multidict import CIMultiDict

from ai_client.gateway.http.asgi import JSON_TYPE, Headers, Message, Scope, error_body
from ai_client.gateway.http.connection import Connection

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# What a header's value may not hold: it would end the line.
_UNSAFE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_REASONS = {status.value: status.phrase for status in HTTPStatus}
# A 426 has to say what is spoken here instead.
_EXTRA: dict[int, Headers] = {426: [(b"upgrade", b"HTTP/1.1")]}
_WITHOUT_BODY = frozenset((204, 304))
# More of an answer is worth a packet of its own.
_MOST_HELD_BYTES = 32 * 1024


class Refused(Exception):  # noqa: N818 - it is an answer
    """A request that is answered here, and ends its connection."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class _SentAnswer(web.StreamResponse):
    """For aiohttp, which wants to see an answer: one that is out already."""

    def __init__(self, *, keeps: bool) -> None:
        super().__init__()
        self._keeps = keeps

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays."""
        return self._keeps

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Called by aiohttp."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Called by aiohttp."""


KEPT, CLOSED = _SentAnswer(keeps=True), _SentAnswer(keeps=False)


def _texts_of(headers: Headers) -> list[tuple[str, str]]:
    """As texts, with nothing in them that would end a line. In one piece where nothing is: this is for each answer.

    aiohttp writes them as UTF-8: what is that already goes out byte for byte.
    """
    try:
        texts = b"\n".join(chain.from_iterable(headers)).decode().split("\n")
    except UnicodeDecodeError:
        texts = []
    if len(texts) == 2 * len(headers) and "".join(texts).isprintable():
        return list(zip(texts[::2], texts[1::2], strict=True))
    return [(name.decode("latin-1"), _UNSAFE.sub("?", _text_of(value))) for name, value in headers]


def _text_of(value: bytes) -> str:
    """The old meaning of bytes that are no UTF-8 is Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


class Exchange:
    """Owned by the task that answers."""

    __slots__ = (
        "_arrival_s",
        "_connection",
        "_has_ended",
        "_held",
        "_held_bytes",
        "_is_bare",
        "_request",
        "_wants_continue",
        "answered",
    )

    def __init__(self, request: web.BaseRequest, connection: Connection, *, arrival_s: float) -> None:
        """`arrival_s`: how long the request may take to arrive, in seconds."""
        self._request = request
        self._connection = connection
        self._arrival_s = arrival_s
        self._has_ended = False
        #: Pieces of the answer that go out before anything else happens.
        self._held: list[bytes] = []
        self._held_bytes = 0
        #: The answer has no body, whatever the application gives.
        self._is_bare = False
        #: What aiohttp is told of the answer; None before its head.
        self.answered: web.StreamResponse | None = None
        self._wants_continue = False

    def read_head(self) -> Scope:
        """The scope for the application. Raises Refused."""
        request = self._request
        is_1_0 = request.version == HttpVersion10
        if not is_1_0 and request.version != HttpVersion11:
            raise Refused(505, "The versions of HTTP here are 1.1 and 1.0.")
        path, _, query = request.raw_path.partition("?")
        if not path.startswith("/"):
            # A target with a host of its own would make the check of Host worthless.
            raise Refused(400, "The request's target must be a path.")
        headers: Headers = [(name.lower(), value) for name, value in request.raw_headers]
        for name, value in headers:
            if name == b"transfer-encoding":
                if is_1_0:
                    raise Refused(400, "HTTP/1.0 has no Transfer-Encoding.")
                if value.strip().lower() != b"chunked":
                    raise Refused(400, "The only Transfer-Encoding here is chunked.")
            elif name == b"expect":
                if value.lower() != b"100-continue":
                    raise Refused(417, "The only Expect here is 100-continue.")
                self._wants_continue = not is_1_0
            elif name == b"upgrade" and value.strip().lower() == b"websocket":
                # What programs that try a websocket first fall back to HTTP by.
                raise Refused(426, "There are no websockets here.")
        return {
            "type": "http",
            "http_version": "1.0" if is_1_0 else "1.1",
            "method": request.method,
            "path": path,
            "query_string": query.encode("latin-1", "replace"),
            "headers": headers,
            "client": self._connection.client,
        }

    async def receive(self) -> Message:
        """What has come of the body, waiting for something to come; `http.disconnect` after the end.

        Raises Refused where the rest does not come in time, or is no proper body.
        """
        if self._has_ended or self._connection.transport is None:
            return {"type": "http.disconnect"}
        content = self._request.content
        if content.is_eof():
            # All of it is there: nothing to wait for, nothing to time.
            return {"type": "http.request", "body": content.read_nowait(), "more_body": False}
        if self._wants_continue:
            self._wants_continue = False
            self._connection.transport.write(_CONTINUE)
        try:
            async with asyncio.timeout_at(self._connection.request_began_s + self._arrival_s):
                body = await content.readany()
        except TimeoutError:
            raise Refused(408, f"The body did not arrive within {self._arrival_s:g} s.") from None
        except web.RequestPayloadError:
            # Nothing more of it is to be waited for.
            content.feed_eof()
            raise Refused(400, "The body does not match its headers.") from None
        return {"type": "http.request", "body": body, "more_body": not content.at_eof()}

    async def send(self, message: Message) -> None:
        """A part of the answer. A whole answer goes out in one write; what the caller no longer takes goes nowhere."""
        if self._has_ended:
            return
        try:
            if message["type"] == "http.response.start":
                await self._start(message["status"], message["headers"])
            elif message["type"] == "http.response.abort":
                self._break_off()
            else:
                await self._send_body(message.get("body", b""), more=message.get("more_body", False))
        except ConnectionError:
            self._has_ended = True

    def _break_off(self) -> None:
        """The caller gets what came, and no end of it."""
        self.send_held()
        self._has_ended = True
        self.answered = CLOSED
        self._connection.force_close()

    async def _start(self, status: int, headers: Headers) -> None:
        request, writer = self._request, self._request.writer
        fields = CIMultiDict(self._connection.common_headers())
        fields.extend(_texts_of(headers))
        is_1_0 = request.version == HttpVersion10
        keeps = not is_1_0 and request.keep_alive and fields.get("connection") != "close"
        self._is_bare = request.method == "HEAD" or status in _WITHOUT_BODY
        is_whole = "content-length" in fields
        if status in _WITHOUT_BODY:
            fields.pop("content-length", None)
        elif not is_whole and is_1_0:
            keeps = False
        elif not is_whole and not self._is_bare:
            fields["transfer-encoding"] = "chunked"
            writer.enable_chunking()
        if not keeps:
            fields["connection"] = "close"
        self.answered = KEPT if keeps else CLOSED
        reason = _REASONS.get(status, "")
        await writer.write_headers(f"HTTP/1.1 {status} {reason}", fields)
        if not is_whole:
            # Of a stream the head may be all that there is for long.
            self._hold(b"")

    async def refuse(self, refused: Refused) -> None:
        """Answer here, where the application has not begun to."""
        body = error_body(kind="invalid_request_error", code="bad_request", message=refused.message)
        length = (b"content-length", str(len(body)).encode())
        await self.send(
            {
                "type": "http.response.start",
                "status": refused.status,
                "headers": [JSON_TYPE, length, (b"connection", b"close"), *_EXTRA.get(refused.status, ())],
            }
        )
        await self.send({"type": "http.response.body", "body": body})

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        if self.answered is None:
            raise RuntimeError("an answer's body before its head")
        if self._is_bare:
            body = b""
        writer = self._request.writer
        if not more:
            self._has_ended = True
            await writer.write_eof(self._take_held(body))
        elif self._connection.writing_paused or self._held_bytes + len(body) > _MOST_HELD_BYTES:
            # The caller may be slower than we are: wait for it.
            await writer.write(self._take_held(body))
        elif body:
            self._hold(body)

    def _hold(self, piece: bytes) -> None:
        """What comes at once goes out at once, in one packet: the head, pieces of the answer, its end."""
        if not self._held:
            self._connection.soon(self.send_held)
        self._held.append(piece)
        self._held_bytes += len(piece)

    def _take_held(self, last: bytes) -> bytes:
        if not self._held:
            return last
        whole = b"".join((*self._held, last))
        self._held.clear()
        self._held_bytes = 0
        return whole

    def send_held(self) -> None:
        """Called by the loop where the application has nothing more to send for now, and where it ends."""
        if not self._held or self._has_ended:
            return
        writer, piece = cast("StreamWriter", self._request.writer), self._take_held(b"")
        try:
            if not piece:
                writer.send_headers()
            else:
                # Without waiting for the caller to read, which the next piece does.
                with suppress(StopIteration):
                    writer.write(piece, drain=False).send(None)
        except ConnectionError:
            self._has_ended = True
