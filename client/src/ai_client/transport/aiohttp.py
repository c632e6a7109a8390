"""A transport over aiohttp's session, for what the default one does not do: proxies, and tunnels through them."""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp

from ai_client.errors import ClientClosedError
from ai_client.platform.loop import ForkMark
from ai_client.transport.aiohttp_parts import (
    FOREIGN,
    Connector,
    make_socket,
    tell_when_sent,
    translate,
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
    plain_headers,
)
from ai_client.transport.progress import RequestProgress
from ai_client.transport.tls import make_tls_context

# Bodies above this may block while they are written; aiohttp's own timer starts only when they are out.
_LARGE_BODY_BYTES: Final = 64 * 1024


class AiohttpTransport:
    """See `base.Transport`."""

    def __init__(self, options: TransportOptions | None = None) -> None:
        self._forked = ForkMark()
        self._session: aiohttp.ClientSession | None = None
        self._connector: Connector | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._options = options or TransportOptions()
        self._pool = Pool(self._options.pool_size)
        self._room = AnswerRoom()
        self._tls = make_tls_context(self._options)
        self._closed = False

    async def fetch(self, request: WireRequest) -> WireResponse:
        progress = RequestProgress(request, request.timeouts or self._options.timeouts)
        answer = await self._start(progress)
        try:
            body = await self._room.whole(answer.content.readany, str(answer.url.host))
        except FOREIGN as error:
            answer.close()
            raise translate(error, progress) from error
        except BaseException:
            answer.close()
            raise
        finally:
            self._pool.give_back()
        return WireResponse(answer.status, plain_headers(answer.raw_headers), body)

    async def open(self, request: WireRequest) -> WireStream:
        progress = RequestProgress(request, request.timeouts or self._options.timeouts)
        answer = await self._start(progress)
        return _AiohttpStream(answer, progress, self._pool)

    async def _start(self, progress: RequestProgress) -> aiohttp.ClientResponse:
        """Sends and waits for the headers. A place in the pool is held when it returns, not when it raises."""
        session = self._session
        if session is None or self._loop is not asyncio.get_running_loop():
            session = self._connect()
        if not self._pool.take_now():
            await self._pool.take(progress.timeouts.pool_s)
        try:
            answer = await self._send(session, progress)
        except FOREIGN as error:
            self._pool.give_back()
            raise translate(error, progress) from error
        except BaseException:
            self._pool.give_back()
            raise
        progress.headers_came = True
        connection = answer.connection
        if connection is not None and connection.protocol is not None:
            connection.protocol.read_timeout = progress.timeouts.read_s
            connection.protocol.start_timeout()
        return answer

    async def _send(
        self, session: aiohttp.ClientSession, progress: RequestProgress
    ) -> aiohttp.ClientResponse:
        request, timeouts = progress.request, progress.timeouts
        is_large = request.body is not None and len(request.body) > _LARGE_BODY_BYTES
        async with asyncio.timeout(timeouts.connect_s + timeouts.headers_s if is_large else None):
            return await session.request(
                request.method,
                request.url,
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
                timeout=_aiohttp_timeout(timeouts),
                trace_request_ctx=progress,
            )

    def _connect(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ClientClosedError("transport", "is closed")
        self.abandon()  # what belongs to another event loop, which has ended
        self._loop = asyncio.get_running_loop()
        self._connector = Connector(
            limit=0,
            ssl=self._tls,
            keepalive_timeout=self._options.keepalive_expiry_s,
            ttl_dns_cache=30,
            socket_factory=make_socket,
        )
        self._connector.keepalive_connections = self._options.keepalive_connections
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            proxy=self._options.proxy_url,
            trust_env=False,
            trace_configs=[tell_when_sent()],
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
        if not self._forked.is_forked:  # else the connections are the parent's
            self.abandon()


def _aiohttp_timeout(timeouts: Timeouts) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(
        total=None, connect=timeouts.connect_s, sock_read=timeouts.headers_s, ceil_threshold=1e9
    )


class _AiohttpStream:
    """See `base.WireStream`."""

    __slots__ = ("_answer", "_open", "_pool", "_progress", "headers", "status")

    def __init__(self, answer: aiohttp.ClientResponse, progress: RequestProgress, pool: Pool) -> None:
        self.status = answer.status
        self.headers = plain_headers(answer.raw_headers)
        self._answer = answer
        self._progress = progress
        self._pool = pool
        self._open = True

    async def read(self) -> bytes:
        try:
            return await self._answer.content.readany()
        except FOREIGN as error:
            raise translate(error, self._progress) from error

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            # At the end of the body the connection is back in the pool already, and this does nothing.
            self._answer.close()
            self._pool.give_back()
