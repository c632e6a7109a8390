"""What one request needs of aiohttp: its connection, its bytes, its answer, and aiohttp's errors in our words."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
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
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    MalformedResponseError,
    TransportTimeoutError,
)
from ai_client.transport.base import Timeouts, WireRequest
from ai_client.transport.tls import verification_error

# Everything that aiohttp raises for trouble with a request; the errors of this package are none of these.
FOREIGN: Final = (aiohttp.ClientError, HttpProcessingError, OSError, TimeoutError, ValueError)


class Exchange:
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


current_exchange: ContextVar[Exchange] = ContextVar("ai_client_exchange")


class Connector(aiohttp.TCPConnector):
    """Tells the exchange when its connection is there: aiohttp writes the request right after."""

    keepalive_connections = 0

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        exchange = current_exchange.get(None)
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


class Answer(Protocol):
    """What is used of an answer: aiohttp's own response has it, and so has `DirectAnswer`."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content(self) -> aiohttp.StreamReader: ...

    @property
    def connection(self) -> Connection | None: ...

    def close(self) -> None: ...


class DirectAnswer:
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


class Route:
    """What all requests to one URL have in common."""

    __slots__ = ("connect_request", "head", "url")

    def __init__(self, method: str, url: URL, loop: asyncio.AbstractEventLoop) -> None:
        self.url = url
        #: The connector takes host, port and TLS from it; it is never sent.
        self.connect_request = ClientRequest(method, url, loop=loop)
        host = self.connect_request.headers["Host"]
        self.head = f"{method} {url.raw_path_qs} HTTP/1.1\r\nHost: {host}\r\n"


def open_ends(connection: Connection) -> tuple[ResponseHandler, asyncio.Transport]:
    """Raises where the upstream closed the connection while it lay in the pool: nothing was sent yet."""
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None or transport.is_closing():
        raise aiohttp.ServerDisconnectedError
    return protocol, transport


def request_bytes(route: Route, request: WireRequest) -> bytes:
    """Head and body, for one write. Raises BadRequestError where a header would break out of its line."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in request.headers.items()])
    count = len(request.headers)
    if lines.count("\n") != count or lines.count("\r") != count or "\0" in lines:
        raise BadRequestError("request header", "holds a line break or a null character")
    if request.body is None:
        return f"{route.head}{lines}\r\n".encode()
    return f"{route.head}{lines}Content-Length: {len(request.body)}\r\n\r\n".encode() + request.body


def make_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, *_ = info
    connection = socket.socket(family=family, type=kind, proto=protocol)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection


def translate(error: Exception, exchange: Exchange) -> AIClientError:
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


def _timeout_error(host: str, exchange: Exchange) -> TransportTimeoutError:
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
