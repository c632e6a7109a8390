"""A thin upstream over aiohttp: sends what it is given, with the key. Stands in until the client does it all."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping

import aiohttp

from ai_client.errors import ConnectionLostError, TransportError
from ai_client.health import tls_context
from ai_client.request import Request, Response
from ai_client.settings import ApiKey, Settings


class PassthroughStream:
    """The upstream's bytes as they come."""

    def __init__(self, answer: aiohttp.ClientResponse, model: str) -> None:
        self._answer = answer
        self.status = answer.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in answer.headers.items()}
        self.model = model
        self.request_id = self.headers.get("x-request-id", "")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._answer.content.iter_any():
                yield chunk
        except aiohttp.ClientError as exc:
            raise ConnectionLostError("the upstream", "the stream broke off", sent=True) from exc

    async def aclose(self) -> None:
        """Gives the connection back, or drops it where the stream is not at its end."""
        self._answer.close()


class Passthrough:
    """An `Upstream` without scheduler, retries, cache or ledger."""

    def __init__(self, settings: Settings, key: ApiKey) -> None:
        self._settings = settings
        self._headers = {"authorization": f"Bearer {key.secret}", "content-type": "application/json"}
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self._settings.api.connection_pool_size, ssl=tls_context(self._settings)
            )
            timeout = aiohttp.ClientTimeout(
                total=None,
                sock_connect=self._settings.performance.connection_timeout_s,
                sock_read=self._settings.performance.read_timeout_s,
            )
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, proxy=self._settings.security.proxy_url
            )
        return self._session

    async def _ask(self, request: Request) -> aiohttp.ClientResponse:
        method = "GET" if request.endpoint == "models" else "POST"
        body = None if method == "GET" else json.dumps(dict(request.body)).encode()
        url = f"{self._settings.api.base_url}/{request.endpoint}"
        try:
            return await self._open().request(method, url, data=body, headers=self._headers)
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise TransportError(f"the upstream {self._settings.api.base_url}", "does not answer") from exc

    async def send(self, request: Request) -> Response:
        """A whole answer."""
        answer = await self._ask(request)
        try:
            body = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise ConnectionLostError("the upstream", "the answer broke off", sent=True) from exc
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Response(status=answer.status, headers=headers, body=body, model=request.model)

    async def stream(self, request: Request) -> PassthroughStream:
        """An answer that comes in pieces."""
        return PassthroughStream(await self._ask(request), request.model)

    async def aclose(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()
