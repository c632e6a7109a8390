"""The default transport: a pool of connections of our own, for many small JSON calls to one host.

Why not aiohttp: docs/adr/0014-a-connection-of-our-own.md. Proxies are aiohttp's: see `proxies`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from typing import Final

from ai_client.errors import BadRequestError, ClientClosedError
from ai_client.platform.loop import ForkMark, RunningLoop
from ai_client.transport.base import (
    DROPPED_HEADERS,
    AnswerRoom,
    Pool,
    PoolStatistics,
    TransportOptions,
    WireRequest,
    WireResponse,
    WireStream,
)
from ai_client.transport.connection import HttpConnection
from ai_client.transport.dialing import Dialer, Origin, Route, route_of
from ai_client.transport.tls import make_tls_context
from ai_client.transport.wire_exchange import WireExchange

_MOST_ROUTES: Final = 64
_CLOSING_S: Final = 0.5


class DirectTransport:
    """See `base.Transport`. It takes no notice of `proxy_url`."""

    def __init__(self, options: TransportOptions | None = None) -> None:
        self._forked = ForkMark()
        self._running = RunningLoop()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._dialer: Dialer | None = None
        #: By origin, the one used last at the end.
        self._idle: dict[Origin, list[HttpConnection]] = {}
        self._open: set[HttpConnection] = set()
        self._all_lost: asyncio.Event | None = None
        self._is_closed = False
        self._options = options or TransportOptions()
        self._pool = Pool(self._options.pool_size)
        self._room = AnswerRoom()
        self._routes: dict[tuple[str, str], Route] = {}
        #: Made at once where a bundle may be wrong, else for the first https: reading the host's store takes 20 ms.
        self._tls = make_tls_context(self._options) if self._options.ca_path is not None else None

    async def fetch(self, request: WireRequest) -> WireResponse:
        exchange = await self._start(request, is_stream=False)
        try:
            await exchange.news()
            if exchange.is_stale:
                exchange = await self._send_again(exchange)
                await exchange.news()
            if exchange.error is not None:
                raise exchange.error
            body = exchange.take()
            exchange.check_end()
        finally:
            exchange.leave()
            self._pool.give_back()
        return WireResponse(exchange.status, _passed_on(exchange.headers), body)

    async def open(self, request: WireRequest) -> WireStream:
        exchange = await self._start(request, is_stream=True)
        try:
            await _head(exchange)
            if exchange.is_stale:
                exchange = await self._send_again(exchange)
                await _head(exchange)
            _check(exchange)
        except BaseException:
            exchange.leave()
            self._pool.give_back()
            raise
        return _DirectStream(exchange, self._pool)

    async def _start(self, request: WireRequest, *, is_stream: bool) -> WireExchange:
        """Sends. A place in the pool is held when it returns, not when it raises."""
        loop = self._running.get()
        if self._loop is not loop:
            self._use_loop(loop)
        timeouts = request.timeouts or self._options.timeouts
        if not self._pool.take_now():
            await self._pool.take(timeouts.pool_s)
        try:
            route = self._routes.get((request.method, request.url)) or self._add_route(request)
            data = request_bytes(route.head, request)
            connection = self._idle_connection(route.origin)
            if connection is None:
                connection = await self._connect(route.origin, timeouts.connect_s)
            exchange = WireExchange(
                request,
                timeouts,
                loop=loop,
                host=route.origin.host,
                is_stream=is_stream,
                room=self._room,
            )
            if request.on_sent is not None:
                self._tell_sent(request.on_sent, route.origin, connection)
            connection.begin(exchange, data)
        except BaseException:
            self._pool.give_back()
            raise
        return exchange

    def _tell_sent(self, on_sent: Callable[[], None], origin: Origin, connection: HttpConnection) -> None:
        """Whoever counts what is sent may refuse it: then the connection is free for others."""
        try:
            on_sent()
        except BaseException:
            self._keep(origin, connection)
            raise

    async def _send_again(self, stale: WireExchange) -> WireExchange:
        """On a new connection, what went out on one that its server had just given up."""
        request, timeouts = stale.request, stale.timeouts
        route = self._routes.get((request.method, request.url)) or self._add_route(request)
        connection = await self._connect(route.origin, timeouts.connect_s)
        exchange = WireExchange(
            request,
            timeouts,
            loop=stale.loop,
            host=stale.host,
            is_stream=stale.is_stream,
            room=self._room,
        )
        connection.begin(exchange, request_bytes(route.head, request))
        return exchange

    def _idle_connection(self, origin: Origin) -> HttpConnection | None:
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if not connection.is_closed:
                return connection
        return None

    async def _connect(self, origin: Origin, timeout_s: float) -> HttpConnection:
        dialer, loop = self._dialer, self._loop
        if dialer is None or loop is None:
            raise ClientClosedError("transport", "is closed")

        def make() -> HttpConnection:
            return HttpConnection(loop, on_idle=partial(self._keep, origin), on_lost=self._forget)

        connection = await dialer.connect(origin, make, timeout_s=timeout_s)
        if self._is_closed or self._loop is not loop:
            connection.close()
            raise ClientClosedError("transport", "is closed")
        self._open.add(connection)
        return connection

    def _keep(self, origin: Origin, connection: HttpConnection) -> None:
        idle = self._idle.setdefault(origin, [])
        if self._is_closed or len(idle) >= self._options.keepalive_connections:
            connection.close()
        else:
            idle.append(connection)
            told_s = connection.told_idle_s
            expiry_s = self._options.keepalive_expiry_s
            connection.keep(expiry_s if told_s is None else min(expiry_s, told_s - min(1.0, told_s / 4)))

    def _forget(self, connection: HttpConnection) -> None:
        self._open.discard(connection)
        if self._all_lost is not None and not self._open:
            self._all_lost.set()
        for idle in self._idle.values():
            if connection in idle:
                idle.remove(connection)

    def _add_route(self, request: WireRequest) -> Route:
        route = route_of(request.method, request.url)
        if len(self._routes) < _MOST_ROUTES:  # a bound, for callers with a URL for each request
            self._routes[(request.method, request.url)] = route
        return route

    def _use_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._is_closed:
            raise ClientClosedError("transport", "is closed")
        self.abandon()  # what belongs to another event loop, which has ended
        self._loop = loop
        self._dialer = Dialer(loop, self._tls_context)

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = make_tls_context(self._options)
        return self._tls

    @property
    def idle_connections(self) -> int:
        """Open ones that nobody uses."""
        return sum(not connection.is_closed for idle in self._idle.values() for connection in idle)

    def statistics(self) -> PoolStatistics:
        return self._pool.statistics()

    async def aclose(self) -> None:
        self._is_closed = True
        is_ours = self._loop is asyncio.get_running_loop()
        self.abandon()
        if not is_ours or not self._open:
            return
        self._all_lost = asyncio.Event()
        # TLS ends with a farewell from either side, which nobody has to wait for long.
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING_S):
                await self._all_lost.wait()
        for connection in list(self._open):
            connection.drop()

    def abandon(self) -> None:
        """Lets go of its connections without waiting: scripts end without closing."""
        loop, self._loop, self._dialer = self._loop, None, None
        self._idle.clear()
        if loop is None or loop.is_closed():
            self._open.clear()  # the sockets went with it
        for connection in list(self._open):
            connection.end()

    def __del__(self) -> None:
        if not self._forked.is_forked:  # else the connections are the parent's
            self.abandon()


class _DirectStream:
    """See `base.WireStream`."""

    __slots__ = ("_exchange", "_is_open", "_pool", "headers", "status")

    def __init__(self, exchange: WireExchange, pool: Pool) -> None:
        self.status = exchange.status
        self.headers = _passed_on(exchange.headers)
        self._exchange = exchange
        self._pool = pool
        self._is_open = True

    async def read(self) -> bytes:
        exchange = self._exchange
        while True:
            if exchange.pieces and (data := exchange.take()):
                return data
            if exchange.error is not None:
                raise exchange.error
            if exchange.is_whole:
                exchange.check_end()
                return b""
            await exchange.news()

    async def aclose(self) -> None:
        if self._is_open:
            self._is_open = False
            self._exchange.leave()
            self._pool.give_back()


def _passed_on(headers: dict[str, str]) -> dict[str, str]:
    """As `plain_headers`, of names that are lower-case already."""
    return {name: headers[name] for name in _names_passed_on(tuple(headers))}


@lru_cache(maxsize=256)
def _names_passed_on(names: tuple[str, ...]) -> list[str]:
    """An upstream's answers mostly have the same names."""
    return [name for name in names if name not in DROPPED_HEADERS]


async def _head(exchange: WireExchange) -> None:
    """Returns when the headers are there, or nothing comes any more."""
    while not exchange.status and exchange.error is None:
        await exchange.news()


def _check(exchange: WireExchange) -> None:
    """Raises what went wrong before the headers came."""
    if exchange.error is not None and not exchange.status:
        raise exchange.error


def request_bytes(head: str, request: WireRequest) -> bytes:
    """Head and body, for one write. Raises BadRequestError where a header would break out of its line."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in request.headers.items()])
    count = len(request.headers)
    if lines.count("\n") != count or lines.count("\r") != count or "\0" in lines:
        raise BadRequestError("request header", "holds a line break or a null character")
    if request.body is None:
        return f"{head}{lines}\r\n".encode()
    return f"{head}{lines}Content-Length: {len(request.body)}\r\n\r\n".encode() + request.body
