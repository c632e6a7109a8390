"""What one request needs of aiohttp: word of its connection, and aiohttp's errors in our words."""

from __future__ import annotations

import socket
from contextvars import ContextVar
from typing import Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.tracing import Trace
from yarl import URL

from ai_client.errors import (
    AIClientError,
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
