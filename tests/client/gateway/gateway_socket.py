"""The gateway's own HTTP server with an application of a test, on a Unix socket."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ai_client.gateway.http.server import App, Server
from ai_client.gateway.http.shared import Bounds


@asynccontextmanager
async def served(app: App, path: Path, bounds: Bounds | None = None) -> AsyncIterator[Server]:
    """The server listens on `path` while the block runs, and ends what is under way after it."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.setblocking(False)
        server = Server(app, wall_clock=time.time, bounds=bounds)
        await server.start([listening])
        yield server
        await server.drain(limit_s=1)


async def asked(path: Path, request: bytes) -> bytes:
    """Everything that comes back for a request, until the server closes."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer
