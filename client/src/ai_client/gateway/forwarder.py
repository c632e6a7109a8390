"""Passes requests on to the process that has taken over, so that none that reaches the old one is lost."""

from __future__ import annotations

from pathlib import Path

import aiohttp

from ai_client.gateway.asgi import Headers, Send
from ai_client.gateway.failures import Failure

# They belong to one connection, not to the answer.
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "date", "server"})


class Forwarder:
    """Over the gateway's own Unix socket, on which the other process listens."""

    def __init__(self, socket: Path) -> None:
        # Waiting is limited where the request is answered, not here.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(socket), limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        )

    async def forward(
        self, send: Send, *, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> None:
        """Send a request and pass its answer on as it comes. The caller's connection is closed after it."""
        url = f"http://localhost{path}"
        try:
            async with self._session.request(method, url, headers=headers, data=body or None) as answer:
                passed: Headers = [
                    (name.lower().encode("latin-1"), value.encode("latin-1"))
                    for name, value in answer.headers.items()
                    if name.lower() not in _HOP_BY_HOP
                ]
                passed.append((b"connection", b"close"))
                await send({"type": "http.response.start", "status": answer.status, "headers": passed})
                async for chunk in answer.content.iter_any():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except aiohttp.ClientConnectorError:
            message = "The service is restarting; send the request again."
            failure = Failure(503, "overloaded_error", "draining", message, None, 1.0, may_retry=True)
            await failure.send(send)

    async def aclose(self) -> None:
        """End its connections."""
        await self._session.close()
