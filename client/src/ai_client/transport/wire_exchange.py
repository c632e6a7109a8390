"""One request on its connection, and its answer as the bytes come."""

from __future__ import annotations

import asyncio
from typing import Protocol

from ai_client.errors import AIClientError, ConnectionLostError, MalformedResponseError
from ai_client.transport.base import AnswerRoom, Timeouts, WireRequest
from ai_client.transport.decompression import Unpacker


class Carrier(Protocol):
    """The connection that an answer comes over."""

    def resume(self) -> None:
        """The reader wants more."""
        ...

    def drop(self) -> None:
        """Nobody reads the rest: the connection ends at once."""
        ...


class WireExchange:
    """One request and its answer, as it comes. `waiter` is woken when it is whole or failed; a stream's at any news."""

    __slots__ = (
        "buffered_bytes",
        "connection",
        "error",
        "has_heard",
        "headers",
        "host",
        "is_resendable",
        "is_stream",
        "is_whole",
        "loop",
        "pieces",
        "request",
        "room",
        "status",
        "timeouts",
        "unpacker",
        "waiter",
    )

    def __init__(
        self,
        request: WireRequest,
        timeouts: Timeouts,
        *,
        loop: asyncio.AbstractEventLoop,
        host: str,
        is_stream: bool,
        room: AnswerRoom,
    ) -> None:
        self.room = room
        self.request = request
        self.loop = loop
        self.timeouts = timeouts
        self.host = host
        self.is_stream = is_stream
        #: 0 until the headers are there.
        self.status = 0
        #: Lower-case names.
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self.buffered_bytes = 0
        self.unpacker: Unpacker | None = None
        self.is_whole = False
        #: A byte of the answer came.
        self.has_heard = False
        #: It goes over a connection that was used before, whose server says for how long it keeps it.
        self.is_resendable = False
        self.error: AIClientError | None = None
        self.waiter: asyncio.Future[None] | None = None
        #: While the answer is coming.
        self.connection: Carrier | None = None

    @property
    def is_stale(self) -> bool:
        """Whether its server closed the connection as this came, without looking at it: it was about to, as it said."""
        return self.is_resendable and not self.has_heard and isinstance(self.error, ConnectionLostError)

    def news(self) -> asyncio.Future[None]:
        """To be awaited, by one at a time: what `wake` tells of."""
        self.waiter = waiter = self.loop.create_future()
        return waiter

    def wake(self) -> None:
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def take(self) -> bytes:
        """The bytes that have come; b"" where there are none, or too few to unpack anything of."""
        pieces = self.pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._let_go()
        if self.connection is not None:
            self.connection.resume()
        return data if self.unpacker is None else self.unpacker.unpack(data)

    def check_end(self) -> None:
        """Raises MalformedResponseError where HTTP says that it was all, and the packing does not."""
        if self.unpacker is not None and not self.unpacker.is_at_end:
            raise MalformedResponseError(self.host, "sent a packed answer without its end")

    def _let_go(self) -> None:
        self.room.taken -= self.buffered_bytes
        self.buffered_bytes = 0

    def leave(self) -> None:
        """Nobody waits for the rest: the upstream must not go on for nobody, and what came takes no memory.

        The error that was raised holds this by its traceback, and must not be held by it.
        """
        self.pieces.clear()
        self.error, self.is_whole = None, True
        self._let_go()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.drop()
