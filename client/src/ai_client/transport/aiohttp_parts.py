"""What we need of aiohttp beyond its session: word that a request is sent, bounded idling, its errors in our words."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from ai_client.errors import (
    AIClientError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    MalformedResponseError,
)
from ai_client.transport.base import host_trouble
from ai_client.transport.progress import RequestProgress
from ai_client.transport.tls import verification_error

# Everything that aiohttp raises for trouble with a request; the errors of this package are none of these.
FOREIGN: Final = (aiohttp.ClientError, HttpProcessingError, OSError, TimeoutError, ValueError)


class Connector(aiohttp.TCPConnector):
    """aiohttp bounds how long connections idle, but not how many."""

    keepalive_connections = 0

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        full = len(self._conns[key]) >= self.keepalive_connections
        super()._release(key, protocol, should_close=should_close or full)

    def abandon(self) -> None:
        """Closes without waiting."""
        self._close()


def tell_when_sent() -> aiohttp.TraceConfig:
    """Marks a request's `RequestProgress` (its `trace_request_ctx`) when its head is about to be written."""
    tracing = aiohttp.TraceConfig()
    tracing.on_request_headers_sent.append(_mark_sent)
    return tracing


async def _mark_sent(
    session: aiohttp.ClientSession, context: SimpleNamespace, told: aiohttp.TraceRequestHeadersSentParams
) -> None:
    del session, told
    progress: RequestProgress = context.trace_request_ctx
    progress.mark_sent()


def make_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    """For one address that is tried; it keeps its connection alive."""
    family, kind, protocol, *_ = info
    connection = socket.socket(family=family, type=kind, proto=protocol)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection


def translate(error: Exception, progress: RequestProgress) -> AIClientError:
    """Our error for one of aiohttp's."""
    host = _host(progress.request.url)
    if isinstance(error, TimeoutError):
        return progress.timeout_error(host)
    translation: AIClientError
    match error:
        case aiohttp.ClientConnectorCertificateError():
            translation = verification_error(host, error.certificate_error)
        case aiohttp.ClientConnectorSSLError():
            translation = verification_error(host, error.os_error)
        case aiohttp.ClientConnectorError():  # DNS, refusal, proxy
            translation = host_trouble(error, host) or ConnectError(host, _why(error))
        case aiohttp.InvalidURL():
            translation = ConfigurationError("base_url", f"{host!r} is not a URL", key="base_url")
        case aiohttp.ClientHttpProxyError():
            translation = ConnectError("proxy", f"answered {error.status} {error.message}")
        case aiohttp.ClientResponseError() | HttpProcessingError():
            translation = MalformedResponseError(host, f"did not answer in HTTP: {error.message}")
        case _ if progress.sent:
            translation = ConnectionLostError(host, _why(error), sent=True)
        case _:
            translation = ConnectError(host, _why(error))
    return translation


def _host(url: str) -> str:
    return URL(url).host or url


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection ended before the answer was whole"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed before an answer came"
    return str(error) or type(error).__name__
