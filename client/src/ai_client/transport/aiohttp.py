"""The default transport: aiohttp, set up for many small JSON calls to one host."""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp
from yarl import URL

from ai_client.errors import ClientClosedError, ConfigurationError
from ai_client.transport.aiohttp_exchange import (
    FOREIGN,
    Answer,
    Connector,
    DirectAnswer,
    Exchange,
    Route,
    current_exchange,
    make_socket,
    open_ends,
    request_bytes,
    translate,
)
from ai_client.transport.base import (
    Pool,
    PoolStatistics,
    Timeouts,
    TransportOptions,
    WireRequest,
    WireResponse,
    WireStream,
    plain_headers,
)
from ai_client.transport.tls import make_tls_context

# Bodies above this may block while they are written; aiohttp's own timer starts only when they are out.
_LARGE_BODY_BYTES: Final = 64 * 1024
_READ_BUFFER_BYTES: Final = 64 * 1024


class AiohttpTransport:
    """See `base.Transport`.

    Small bodies without a proxy take aiohttp's connector and parser without its session, which spends 40 % of a
    call's CPU on what these calls don't need (cookies, redirects, a task to write a body with).
    """

    def __init__(self, options: TransportOptions | None = None) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._connector: Connector | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._options = options or TransportOptions()
        self._pool = Pool(self._options.pool_size)
        self._tls = make_tls_context(self._options)
        self._routes: dict[tuple[str, str], Route] = {}
        self._aiohttp_timeouts: dict[Timeouts, aiohttp.ClientTimeout] = {}
        self._closed = False

    async def fetch(self, request: WireRequest) -> WireResponse:
        exchange = Exchange(request, request.timeouts or self._options.timeouts)
        answer = await self._start(exchange)
        try:
            body = await answer.content.read()
        except FOREIGN as error:
            answer.close()
            raise translate(error, exchange) from error
        except BaseException:
            answer.close()
            raise
        finally:
            self._pool.give_back()
        return WireResponse(answer.status, plain_headers(answer.headers), body)

    async def open(self, request: WireRequest) -> WireStream:
        exchange = Exchange(request, request.timeouts or self._options.timeouts)
        answer = await self._start(exchange)
        return _AiohttpStream(answer, exchange, self._pool)

    async def _start(self, exchange: Exchange) -> Answer:
        """Sends and waits for the headers. A place in the pool is held when it returns, not when it raises."""
        connector = self._connector
        if connector is None or self._loop is not asyncio.get_running_loop():
            connector = self._connect()
        if not self._pool.take_now():
            await self._pool.take(exchange.timeouts.pool_s)
        try:
            answer = await self._send(connector, exchange)
        except FOREIGN as error:
            self._pool.give_back()
            raise translate(error, exchange) from error
        except BaseException:
            self._pool.give_back()
            raise
        exchange.headers_came = True
        connection = answer.connection
        if connection is not None and connection.protocol is not None:
            connection.protocol.read_timeout = exchange.timeouts.read_s
            connection.protocol.start_timeout()
        return answer

    async def _send(self, connector: Connector, exchange: Exchange) -> Answer:
        request, timeouts = exchange.request, exchange.timeouts
        route = self._routes.get((request.method, request.url))
        if route is None:
            route = self._add_route(request)
        is_large = request.body is not None and len(request.body) > _LARGE_BODY_BYTES
        if not is_large and self._options.proxy_url is None:
            return await self._send_directly(connector, route, exchange)
        async with asyncio.timeout(timeouts.connect_s + timeouts.headers_s if is_large else None):
            return await self._send_by_session(connector, route, exchange)

    async def _send_directly(self, connector: Connector, route: Route, exchange: Exchange) -> Answer:
        request, timeouts = exchange.request, exchange.timeouts
        data = request_bytes(route, request)
        connection = await connector.connect(route.connect_request, [], self._timeout(timeouts))
        try:
            protocol, transport = open_ends(connection)
            protocol.set_response_params(
                read_until_eof=True, read_timeout=timeouts.headers_s, read_bufsize=_READ_BUFFER_BYTES
            )
            exchange.mark_sent()
            transport.write(data)
            protocol.start_timeout()
            message, content = await protocol.read()
            while 100 <= message.code < 200:
                message, content = await protocol.read()
        except BaseException:
            connection.close()
            raise
        return DirectAnswer(message, content, connection)

    async def _send_by_session(self, connector: Connector, route: Route, exchange: Exchange) -> Answer:
        request = exchange.request
        session = self._session or self._make_session(connector)
        token = current_exchange.set(exchange)
        try:
            return await session.request(
                request.method,
                route.url,
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
                timeout=self._timeout(exchange.timeouts),
            )
        finally:
            current_exchange.reset(token)

    def _add_route(self, request: WireRequest) -> Route:
        assert self._loop is not None  # noqa: S101 - for the type checker: there is a connector
        url = URL(request.url, encoded=True)
        if url.scheme not in {"http", "https"} or not url.raw_host:
            raise ConfigurationError("base_url", f"{request.url!r} is not an http(s) URL", key="base_url")
        route = self._routes[(request.method, request.url)] = Route(request.method, url, self._loop)
        return route

    def _timeout(self, timeouts: Timeouts) -> aiohttp.ClientTimeout:
        timeout = self._aiohttp_timeouts.get(timeouts)
        if timeout is None:
            timeout = aiohttp.ClientTimeout(
                total=None, connect=timeouts.connect_s, sock_read=timeouts.headers_s, ceil_threshold=1e9
            )
            if len(self._aiohttp_timeouts) < 64:  # a bound, for callers who give each request its own
                self._aiohttp_timeouts[timeouts] = timeout
        return timeout

    def _connect(self) -> Connector:
        if self._closed:
            raise ClientClosedError("transport", "is closed")
        self.abandon()  # what belongs to another event loop, which has ended
        self._loop = asyncio.get_running_loop()
        self._routes.clear()
        self._connector = Connector(
            limit=0,
            ssl=self._tls,
            keepalive_timeout=self._options.keepalive_expiry_s,
            ttl_dns_cache=30,
            socket_factory=make_socket,
        )
        self._connector.keepalive_connections = self._options.keepalive_connections
        return self._connector

    def _make_session(self, connector: Connector) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            proxy=self._options.proxy_url,
            trust_env=False,
        )
        return self._session

    def statistics(self) -> PoolStatistics:
        return self._pool.statistics()

    async def aclose(self) -> None:
        self._closed = True
        session, connector = self._session, self._connector
        self._session = self._connector = None
        if session is not None:
            await session.close()
        if connector is not None:
            await connector.close()

    def abandon(self) -> None:
        """Lets go of its connections where no event loop is left to close them: scripts end without closing.

        aiohttp would complain of each in the log.
        """
        session, connector = self._session, self._connector
        self._session = self._connector = None
        if session is not None and not session.closed:
            session.detach()
        if connector is not None:
            connector.abandon()

    def __del__(self) -> None:
        self.abandon()


class _AiohttpStream:
    """See `base.WireStream`."""

    __slots__ = ("_answer", "_content", "_exchange", "_open", "_pool", "headers", "status")

    def __init__(self, answer: Answer, exchange: Exchange, pool: Pool) -> None:
        self.status = answer.status
        self.headers = plain_headers(answer.headers)
        self._answer = answer
        self._content = answer.content
        self._exchange = exchange
        self._pool = pool
        self._open = True

    async def read(self) -> bytes:
        try:
            return await self._content.readany()
        except FOREIGN as error:
            raise translate(error, self._exchange) from error

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            # At the end of the body the connection is back in the pool already, and this does nothing.
            self._answer.close()
            self._pool.give_back()
