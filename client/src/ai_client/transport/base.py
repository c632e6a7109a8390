"""What the client needs of an HTTP stack, and nothing more.

A transport raises only `ai_client.errors`; foreign errors are translated in it, `from exc`.
An HTTP status is never an error here.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from msgspec import Struct

from ai_client.errors import AIClientError, HostResourcesError, MalformedResponseError, PoolTimeout

#: A longer answer has no end: the largest that is known, 2,048 vectors of 3,072 numbers, takes half of it.
MOST_ANSWER_BYTES: Final = 256 * 1024 * 1024
#: One that is no longer is taken, however many others wait for their ends.
ALWAYS_TAKEN_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Longest waits of one attempt, in seconds."""

    #: For a free connection of the pool.
    pool_s: float = 5.0
    #: TCP and TLS.
    connect_s: float = 10.0
    #: From the request to the response's headers.
    headers_s: float = 30.0
    #: Longest silence within the body.
    read_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportOptions:
    """How connections are made and kept."""

    pool_size: int = 100
    keepalive_connections: int = 50
    keepalive_expiry_s: float = 30.0
    verify_tls: bool = True
    #: PEM bundle that is trusted in addition to the system's.
    ca_path: str | None = None
    #: http://[user:password@]host:port
    proxy_url: str | None = None
    timeouts: Timeouts = Timeouts()


class WireRequest(Struct, kw_only=True):
    """One HTTP request. `url` is absolute; `headers` are complete but for Host and Content-Length."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    #: Replaces the transport's own, where given.
    timeouts: Timeouts | None = None
    #: Called once, when a connection is held and the first byte is about to be written; what it raises ends it.
    on_sent: Callable[[], None] | None = None


class WireResponse(Struct):
    """A whole answer. Header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes


class WireStream(Protocol):
    """An answer whose body comes in pieces. It must be closed, whatever happens.

    Closing before the end drops the connection; after the end the connection goes back to the pool.
    Reading is pulled: what nobody reads stays in the socket, so that the sender is slowed down.
    """

    status: int
    headers: dict[str, str]

    async def read(self) -> bytes:
        """The next bytes of the body as they come; b"" at its end."""
        ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """Of the connections of one transport."""

    size: int
    in_use: int
    waiting: int


class Transport(Protocol):
    """An HTTP stack with a pool of kept connections."""

    async def fetch(self, request: WireRequest) -> WireResponse:
        """Sends the request and reads the whole answer."""
        ...

    async def open(self, request: WireRequest) -> WireStream:
        """Sends the request and returns as soon as the headers are there."""
        ...

    def statistics(self) -> PoolStatistics: ...

    async def aclose(self) -> None:
        """Closes every connection. Calls under way fail with ConnectionLostError."""
        ...


# About the connection or the encoding that the transport has undone, not about the answer.
DROPPED_HEADERS = frozenset(
    ("content-encoding", "content-length", "transfer-encoding", "connection", "keep-alive")
)


def plain_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Lower-case names, without those that end at the transport; of values each byte is a letter (latin-1).

    What stands in a header has no encoding that all agree on. So it goes on as it came.
    """
    return {
        low: value.decode("latin-1")
        for name, value in raw
        if (low := name.decode("latin-1").lower()) not in DROPPED_HEADERS
    }


# Descriptors and memory of this host.
_OWN: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))
_OWN_OF_NAMES: Final = frozenset((socket.EAI_SYSTEM, socket.EAI_MEMORY))


def host_trouble(error: BaseException | None, host: str) -> HostResourcesError | None:
    """Where it is this host that can't, for want of something; None where anybody else is at fault."""
    for _ in range(8):
        if error is None:
            return None
        if isinstance(error, OSError):
            own = _OWN_OF_NAMES if isinstance(error, socket.gaierror) else _OWN
            if error.errno in own:
                return HostResourcesError("this host", f"has no way to {host} just now: {error}")
        error = error.__cause__ or error.__context__
    return None


def endless_answer(host: str) -> MalformedResponseError:
    """What is said of an answer of which more comes than `MOST_ANSWER_BYTES`."""
    return MalformedResponseError(host, f"sent an answer of over {MOST_ANSWER_BYTES // 2**20} MB")


class AnswerRoom:
    """How many bytes of whole answers may wait in memory for their ends, of all connections of one transport."""

    __slots__ = ("most_bytes", "taken")

    def __init__(self, most_bytes: int = MOST_ANSWER_BYTES) -> None:
        self.most_bytes = most_bytes
        self.taken = 0

    def take(self, count: int, *, of_bytes: int, host: str) -> AIClientError | None:
        """Counts what came of an answer, `of_bytes` of it by now; what is to be raised where that is too much.

        An answer without end is the upstream's fault, many long ones at once are this host's lack of memory.
        """
        self.taken += count
        if of_bytes > MOST_ANSWER_BYTES:
            return endless_answer(host)
        if self.taken > self.most_bytes and of_bytes > ALWAYS_TAKEN_BYTES:
            return self._refusal(host)
        return None

    async def whole(self, read: Callable[[], Awaitable[bytes]], host: str) -> bytes:
        """All that `read` gives until it gives nothing. Raises MalformedResponseError, HostResourcesError."""
        pieces, size = [], 0
        try:
            while piece := await read():
                pieces.append(piece)
                size += len(piece)
                if (error := self.take(len(piece), of_bytes=size, host=host)) is not None:
                    raise error
            return b"".join(pieces)
        finally:
            pieces.clear()  # an error holds this frame, and is held by it
            self.taken -= size

    def _refusal(self, host: str) -> HostResourcesError:
        reason = f"has no memory for the answer of {host}: {self.taken // 2**20} MB of answers are coming in"
        return HostResourcesError("this host", reason, sent=True)


class Pool:
    """Counts the connections in use, so that both transports tell the same facts when none is free.

    Invariant: in_use ≤ size, and nobody waits while in_use < size. First come, first served.
    """

    __slots__ = ("_waiters", "in_use", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.in_use = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    def take_now(self) -> bool:
        """Takes a place if one is free, without waiting."""
        if self.in_use < self.size:
            self.in_use += 1
            return True
        return False

    async def take(self, timeout_s: float) -> None:
        """Waits for a place; PoolTimeout after `timeout_s`."""
        if self.take_now():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self.give_back()  # the place came in the same moment as the timeout or the cancellation
            with suppress(ValueError):
                self._waiters.remove(waiter)
            if isinstance(error, TimeoutError):
                raise PoolTimeout(
                    "connection pool", size=self.size, in_use=self.in_use, timeout_s=timeout_s
                ) from error
            raise

    def give_back(self) -> None:
        """Hands the place to the longest waiter, else frees it."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.in_use -= 1

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(self.size, self.in_use, len(self._waiters))
