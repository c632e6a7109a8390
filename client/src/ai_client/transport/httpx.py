"""A transport over `httpx.AsyncClient`: for those who hand in their own (HTTP/2, SOCKS, mock transports).

Slower than the default by far (spec: 2,299 µs of CPU a request against 66), so it is a choice, not the default.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import httpx

from ai_client.errors import (
    AIClientError,
    ClientClosedError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    MalformedResponseError,
    PoolTimeout,
)
from ai_client.transport.base import (
    AnswerRoom,
    Pool,
    PoolStatistics,
    Timeouts,
    TransportOptions,
    WireRequest,
    WireResponse,
    WireStream,
    host_trouble,
    plain_headers,
)
from ai_client.transport.progress import RequestProgress
from ai_client.transport.tls import find_tls_error, make_tls_context, verification_error

_FOREIGN: Final = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError)
_SENT_TRACES: Final = frozenset(("http11.send_request_headers.started", "http2.send_request_headers.started"))


class HttpxTransport:
    """See `base.Transport`. A client that is handed in keeps its own settings and is not closed."""

    def __init__(
        self, client: httpx.AsyncClient | None = None, options: TransportOptions | None = None
    ) -> None:
        self._options = options or TransportOptions()
        self._pool = Pool(self._options.pool_size)
        self._room = AnswerRoom()
        self._is_owner = client is None
        self._client = client or _make_client(self._options)

    async def fetch(self, request: WireRequest) -> WireResponse:
        stream = await self._start(request)
        try:
            body = await self._room.whole(stream.read, httpx.URL(request.url).host)
        finally:
            await stream.aclose()
        return WireResponse(stream.status, stream.headers, body)

    async def open(self, request: WireRequest) -> WireStream:
        return await self._start(request)

    async def _start(self, request: WireRequest) -> _HttpxStream:
        """Sends and waits for the headers. A place in the pool is held when it returns, not when it raises."""
        progress = RequestProgress(request, request.timeouts or self._options.timeouts)
        if self._client.is_closed:
            raise ClientClosedError("transport", "is closed")
        if not self._pool.take_now():
            await self._pool.take(progress.timeouts.pool_s)
        # httpcore looks the read timeout up at each phase, so that one table serves headers and body.
        table = _timeout_table(progress.timeouts)
        try:
            outgoing = self._client.build_request(
                request.method,
                request.url,
                headers=dict(request.headers),
                content=request.body,
                extensions={"timeout": table, "trace": _tell_when_sent(progress)},
            )
            response = await self._client.send(outgoing, stream=True, auth=None, follow_redirects=False)
        except _FOREIGN as error:
            self._pool.give_back()
            raise _translate(error, progress, self._pool) from error
        except BaseException:
            self._pool.give_back()
            raise
        progress.mark_sent()  # a mock transport traces nothing
        progress.headers_came = True
        table["read"] = progress.timeouts.read_s
        return _HttpxStream(response, progress, self._pool)

    def statistics(self) -> PoolStatistics:
        return self._pool.statistics()

    def abandon(self) -> None:
        """httpx needs no farewell where no event loop is left to close its connections."""

    async def aclose(self) -> None:
        if self._is_owner:
            await self._client.aclose()


class _HttpxStream:
    """See `base.WireStream`."""

    __slots__ = ("_open", "_pieces", "_pool", "_progress", "_response", "headers", "status")

    def __init__(self, response: httpx.Response, progress: RequestProgress, pool: Pool) -> None:
        self.status = response.status_code
        self.headers = plain_headers(response.headers.raw)
        self._response = response
        self._pieces = response.aiter_bytes()
        self._progress = progress
        self._pool = pool
        self._open = True

    async def read(self) -> bytes:
        try:
            async for piece in self._pieces:
                if piece:
                    return piece
        except _FOREIGN as error:
            raise _translate(error, self._progress, self._pool) from error
        return b""

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            try:
                await self._response.aclose()
            finally:
                self._pool.give_back()


def _tell_when_sent(progress: RequestProgress) -> Callable[[str, object], Awaitable[None]]:
    """What httpcore calls at each step."""

    async def trace(name: str, told: object) -> None:
        del told
        if name in _SENT_TRACES:
            progress.mark_sent()

    return trace


def _make_client(options: TransportOptions) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        verify=make_tls_context(options),
        proxy=options.proxy_url,
        limits=httpx.Limits(
            max_connections=options.pool_size,
            max_keepalive_connections=options.keepalive_connections,
            keepalive_expiry=options.keepalive_expiry_s,
        ),
        trust_env=False,
    )


def _timeout_table(timeouts: Timeouts) -> dict[str, float]:
    return {
        "connect": timeouts.connect_s,
        "read": timeouts.headers_s,
        "write": timeouts.headers_s,
        "pool": timeouts.pool_s,
    }


def _translate(error: Exception, progress: RequestProgress, pool: Pool) -> AIClientError:
    url = progress.request.url
    host = httpx.URL(url).host or url
    translation: AIClientError
    match error:
        case httpx.PoolTimeout():
            waited_s = progress.timeouts.pool_s
            translation = PoolTimeout(
                "connection pool", size=pool.size, in_use=pool.in_use, timeout_s=waited_s
            )
        case httpx.TimeoutException():
            translation = progress.timeout_error(host)
        case httpx.ProxyError():
            translation = ConnectError("proxy", str(error) or "refused the connection")
        case httpx.ConnectError():
            tls = find_tls_error(error)
            own = host_trouble(error, host) or ConnectError(host, str(error))
            translation = own if tls is None else verification_error(host, tls)
        case httpx.UnsupportedProtocol() | httpx.InvalidURL():
            translation = ConfigurationError("base_url", f"{host!r} is not a URL", key="base_url")
        case httpx.RemoteProtocolError() if not _is_loss(error):
            translation = MalformedResponseError(host, f"did not answer in HTTP: {error}")
        case _ if progress.sent:
            translation = ConnectionLostError(host, str(error) or type(error).__name__, sent=True)
        case _:
            translation = ConnectError(host, str(error) or type(error).__name__)
    return translation


def _is_loss(error: httpx.RemoteProtocolError) -> bool:
    """httpx has one class for a connection that ended and for an answer that is not HTTP."""
    text = str(error)
    return "disconnected" in text or "peer closed" in text
