"""Passes requests on to the process that has taken over, so that none that reaches the old one is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from ai_client.gateway.app.failures import Failure
from ai_client.gateway.http.asgi import Headers, Send

# They belong to one connection, not to the answer.
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"date", b"server"})


class Forwarder:
    """Over the gateway's own Unix socket, on which the other process listens."""

    def __init__(self, socket: Path) -> None:
        # Waiting is limited where the request is answered, not here.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(socket), limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        )
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def forward(
        self, send: Send, *, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> None:
        """Send a request and pass its answer on as it comes. The caller's connection is closed after it.

        Raises ConnectionResetError where the other process is lost in the middle of an answer.
        """
        self._under_way += 1
        self._idle.clear()
        try:
            await self._pass_on(send, method=method, path=path, headers=headers, body=body)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _pass_on(
        self, send: Send, *, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> None:
        has_begun = False
        url = f"http://localhost{path}"
        try:
            async with self._session.request(method, url, headers=headers, data=body or None) as answer:
                passed: Headers = [
                    (name.lower(), value)
                    for name, value in answer.raw_headers
                    if name.lower() not in _HOP_BY_HOP
                ]
                passed.append((b"connection", b"close"))
                has_begun = True
                await send({"type": "http.response.start", "status": answer.status, "headers": passed})
                async for chunk in answer.content.iter_any():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except aiohttp.ClientConnectorError:
            message = "The service is restarting; send the request again."
            await Failure(503, "overloaded_error", "draining", message, None, 1.0, may_retry=True).send(send)
        except aiohttp.ClientError as exc:
            if has_begun:
                raise ConnectionResetError(
                    "the process that took over was lost: the answer breaks off"
                ) from exc
            message = "The process that had taken over was lost; the request may have been carried out."
            await Failure(503, "server_error", "handover_failed", message).send(send)

    async def aclose(self) -> None:
        """End its connections when the last request has its answer."""
        await self._idle.wait()
        await self._session.close()
