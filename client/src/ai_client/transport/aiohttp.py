"""The default transport: aiohttp, set up for many small JSON calls to one host."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from typing import Final, Protocol

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from aiohttp.tracing import Trace
from yarl import URL

from ai_client.errors import (
    AIClientError,
    BadRequestError,
    ClientClosedError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    MalformedResponseError,
    TransportTimeoutError,
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
from ai_client.transport.tls import make_tls_context, verification_error

# Bodies above this may block while they are written; aiohttp's own timer starts only when they are out.
_LARGE_BODY_BYTES = 64 * 1024

# Everything that aiohttp raises for trouble with a request; the errors of this package are none of these.
_FOREIGN: Final = (aiohttp.ClientError, HttpProcessingError, OSError, TimeoutError, ValueError)
_READ_BUFFER_BYTES: Final = 64 * 1024


class _Exchange:
    """One request under way: how far it got, and whom to tell."""

    __slots__ = ("headers_came", "request", "sent", "timeouts")

    def __init__(self, request: WireRequest, timeouts: Timeouts) -> None:
        self.request = request
        self.timeouts = timeouts
        self.sent = False
        self.headers_came = False

    def mark_sent(self) -> None:
        self.sent = True
        if self.request.on_sent is not None:
            self.request.on_sent()


_exchange: ContextVar[_Exchange] = ContextVar("ai_client_exchange")


class _Connector(aiohttp.TCPConnector):
    """Tells the exchange when its connection is there: aiohttp writes the request right after."""

    keepalive_connections = 0

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        exchange = _exchange.get(None)
        if exchange is not None:
            exchange.mark_sent()
        return connection

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        # aiohttp bounds how long connections idle, but not how many.
        full = len(self._conns[key]) >= self.keepalive_connections
        super()._release(key, protocol, should_close=should_close or full)

    def abandon(self) -> None:
        """Closes without waiting."""
        self._close()


class _Answer(Protocol):
    """What is used of an answer: aiohttp's own response has it, and so has `_DirectAnswer`."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content(self) -> aiohttp.StreamReader: ...

    @property
    def connection(self) -> Connection | None: ...

    def close(self) -> None: ...


class _DirectAnswer:
    """An answer on a connection of the pool. At its end the connection goes back, closed before it is dropped."""

    __slots__ = ("connection", "content", "headers", "status")

    def __init__(
        self, message: RawResponseMessage, content: aiohttp.StreamReader, connection: Connection
    ) -> None:
        self.status: int = message.code
        self.headers: Mapping[str, str] = message.headers
        self.content = content
        self.connection: Connection | None = connection
        content.on_eof(self._release)

    def _release(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.release()

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()


class _Route:
    """What all requests to one URL have in common."""

    __slots__ = ("connect_request", "head", "url")

    def __init__(self, method: str, url: URL, loop: asyncio.AbstractEventLoop) -> None:
        self.url = url
        #: The connector takes host, port and TLS from it; it is never sent.
        self.connect_request = ClientRequest(method, url, loop=loop)
        host = self.connect_request.headers["Host"]
        self.head = f"{method} {url.raw_path_qs} HTTP/1.1\r\nHost: {host}\r\n"


class AiohttpTransport:
    """See `base.Transport`.

    Small bodies without a proxy take aiohttp's connector and parser without its session: two thirds of the CPU of
    a call are spent there on what these calls don't need (cookies, redirects, a task to write a body with).
    """

    def __init__(self, options: TransportOptions | None = None) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._connector: _Connector | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._options = options or TransportOptions()
        self._pool = Pool(self._options.pool_size)
        self._tls = make_tls_context(self._options)
        self._routes: dict[tuple[str, str], _Route] = {}
        self._aiohttp_timeouts: dict[Timeouts, aiohttp.ClientTimeout] = {}
        self._closed = False

    async def fetch(self, request: WireRequest) -> WireResponse:
        exchange = _Exchange(request, request.timeouts or self._options.timeouts)
        answer = await self._start(exchange)
        try:
            body = await answer.content.read()
        except _FOREIGN as error:
            answer.close()
            raise _translate(error, exchange) from error
        except BaseException:
            answer.close()
            raise
        finally:
            self._pool.give_back()
        return WireResponse(answer.status, plain_headers(answer.headers), body)

    async def open(self, request: WireRequest) -> WireStream:
        exchange = _Exchange(request, request.timeouts or self._options.timeouts)
        answer = await self._start(exchange)
        return _AiohttpStream(answer, exchange, self._pool)

    async def _start(self, exchange: _Exchange) -> _Answer:
        """Sends and waits for the headers. A place in the pool is held when it returns, not when it raises."""
        connector = self._connector
        if connector is None or self._loop is not asyncio.get_running_loop():
            connector = self._connect()
        if not self._pool.take_now():
            await self._pool.take(exchange.timeouts.pool_s)
        try:
            answer = await self._send(connector, exchange)
        except _FOREIGN as error:
            self._pool.give_back()
            raise _translate(error, exchange) from error
        except BaseException:
            self._pool.give_back()
            raise
        exchange.headers_came = True
        connection = answer.connection
        if connection is not None and connection.protocol is not None:
            connection.protocol.read_timeout = exchange.timeouts.read_s
            connection.protocol.start_timeout()
        return answer

    async def _send(self, connector: _Connector, exchange: _Exchange) -> _Answer:
        request, timeouts = exchange.request, exchange.timeouts
        route = self._routes.get((request.method, request.url))
        if route is None:
            route = self._add_route(request)
        is_large = request.body is not None and len(request.body) > _LARGE_BODY_BYTES
        if not is_large and self._options.proxy_url is None:
            return await self._send_directly(connector, route, exchange)
        async with asyncio.timeout(timeouts.connect_s + timeouts.headers_s if is_large else None):
            return await self._send_by_session(connector, route, exchange)

    async def _send_directly(self, connector: _Connector, route: _Route, exchange: _Exchange) -> _Answer:
        request, timeouts = exchange.request, exchange.timeouts
        data = _request_bytes(route, request)
        connection = await connector.connect(route.connect_request, [], self._timeout(timeouts))
        try:
            protocol, transport = _open_ends(connection)
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
        return _DirectAnswer(message, content, connection)

    async def _send_by_session(self, connector: _Connector, route: _Route, exchange: _Exchange) -> _Answer:
        request = exchange.request
        session = self._session or self._make_session(connector)
        token = _exchange.set(exchange)
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
            _exchange.reset(token)

    def _add_route(self, request: WireRequest) -> _Route:
        assert self._loop is not None  # noqa: S101 - for the type checker: there is a connector
        url = URL(request.url, encoded=True)
        if url.scheme not in {"http", "https"} or not url.raw_host:
            raise ConfigurationError("base_url", f"{request.url!r} is not an http(s) URL", key="base_url")
        route = self._routes[(request.method, request.url)] = _Route(request.method, url, self._loop)
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

    def _connect(self) -> _Connector:
        if self._closed:
            raise ClientClosedError("transport", "is closed")
        self.abandon()  # what belongs to another event loop, which has ended
        self._loop = asyncio.get_running_loop()
        self._routes.clear()
        self._connector = _Connector(
            limit=0,
            ssl=self._tls,
            keepalive_timeout=self._options.keepalive_expiry_s,
            ttl_dns_cache=30,
            socket_factory=_make_socket,
        )
        self._connector.keepalive_connections = self._options.keepalive_connections
        return self._connector

    def _make_session(self, connector: _Connector) -> aiohttp.ClientSession:
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

    __slots__ = ("_answer", "_exchange", "_open", "_pool", "headers", "status")

    def __init__(self, answer: _Answer, exchange: _Exchange, pool: Pool) -> None:
        self.status = answer.status
        self.headers = plain_headers(answer.headers)
        self._answer = answer
        self._exchange = exchange
        self._pool = pool
        self._open = True

    async def chunks(self) -> AsyncIterator[bytes]:
        content = self._answer.content
        while True:
            try:
                chunk = await content.readany()
            except _FOREIGN as error:
                raise _translate(error, self._exchange) from error
            if not chunk:
                return
            yield chunk

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            # At the end of the body the connection is back in the pool already, and this does nothing.
            self._answer.close()
            self._pool.give_back()


def _open_ends(connection: Connection) -> tuple[ResponseHandler, asyncio.Transport]:
    """Raises where the upstream closed the connection while it lay in the pool: nothing was sent yet."""
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None or transport.is_closing():
        raise aiohttp.ServerDisconnectedError
    return protocol, transport


def _request_bytes(route: _Route, request: WireRequest) -> bytes:
    """Head and body, for one write. Raises BadRequestError where a header would break out of its line."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in request.headers.items()])
    count = len(request.headers)
    if lines.count("\n") != count or lines.count("\r") != count or "\0" in lines:
        raise BadRequestError("request header", "holds a line break or a null character")
    if request.body is None:
        return f"{route.head}{lines}\r\n".encode()
    return f"{route.head}{lines}Content-Length: {len(request.body)}\r\n\r\n".encode() + request.body


def _make_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, *_ = info
    connection = socket.socket(family=family, type=kind, proto=protocol)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection


def _translate(error: Exception, exchange: _Exchange) -> AIClientError:
    host = _host(exchange.request.url)
    if isinstance(error, TimeoutError):
        return _timeout_error(host, exchange)
    translation: AIClientError
    match error:
        case aiohttp.ClientConnectorCertificateError():
            translation = verification_error(host, error.certificate_error)
        case aiohttp.ClientConnectorSSLError():
            translation = verification_error(host, error.os_error)
        case aiohttp.ClientConnectorError():  # DNS, refusal, proxy
            translation = ConnectError(host, _why(error))
        case aiohttp.InvalidURL():
            translation = ConfigurationError("base_url", f"{host!r} is not a URL", key="base_url")
        case aiohttp.ClientHttpProxyError():
            translation = ConnectError("proxy", f"answered {error.status} {error.message}")
        case aiohttp.ClientResponseError() | HttpProcessingError():
            translation = MalformedResponseError(host, f"did not answer in HTTP: {error.message}")
        case _ if exchange.sent:
            translation = ConnectionLostError(host, _why(error), sent=True)
        case _:
            translation = ConnectError(host, _why(error))
    return translation


def _timeout_error(host: str, exchange: _Exchange) -> TransportTimeoutError:
    timeouts = exchange.timeouts
    if not exchange.sent:
        return TransportTimeoutError(host, phase="connect", timeout_s=timeouts.connect_s, sent=False)
    if not exchange.headers_came:
        return TransportTimeoutError(host, phase="headers", timeout_s=timeouts.headers_s, sent=True)
    return TransportTimeoutError(host, phase="read", timeout_s=timeouts.read_s, sent=True)


def _host(url: str) -> str:
    return URL(url).host or url


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection ended before the answer was whole"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed before an answer came"
    return str(error) or type(error).__name__
