"""Accepts connections, ticks once a second, and drains."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate

from ai_client.gateway.protocol import App, Connections, GatewayProtocol

KEEP_ALIVE_S = 75.0
REQUEST_ARRIVAL_S = 30.0
TICK_S = 1.0
LINGER_S = 0.1
# For the last words to callers whose requests are cut off.
CLOSE_S = 1.0
RUN_OUT_LOOK_S = 0.25


class Server:
    """The connections of one ASGI application on given sockets."""

    def __init__(self, app: App, *, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._state = Connections(app)
        self._servers: list[asyncio.Server] = []
        self._ticker: asyncio.Task[None] | None = None
        self.on_tick: Callable[[], None] = lambda: None

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._state.open)

    @property
    def requests_in_flight(self) -> int:
        """How many are being answered."""
        return len(self._state.tasks)

    @property
    def faults(self) -> int:
        """How many requests a fault of ours has ended: they got a 500, or an answer that breaks off."""
        return self._state.faults

    async def start(self, sockets: list[socket.socket]) -> None:
        """Begin to accept, on copies of the sockets: theirs stay open when this server stops."""
        loop = asyncio.get_running_loop()
        self._set_date()

        def make() -> GatewayProtocol:
            return GatewayProtocol(self._state, loop)

        self._servers = [await loop.create_server(make, sock=sock.dup()) for sock in sockets]
        if self._ticker is None:
            self._ticker = loop.create_task(self._tick())

    def stop_accepting(self) -> None:
        """What is in the sockets' queues is for whoever accepts next."""
        for server in self._servers:
            server.close()
        self._servers = []

    async def drain(self, *, limit_s: float) -> int:
        """Stop accepting, let running requests end, cut off the rest after `limit_s`: how many those were.

        An answer has ended when its caller has taken it, not when it is written. Idle connections stay until the end,
        so that a request that is on its way on one gets its answer (the application's 503) and no reset.
        """
        self.stop_accepting()
        loop = asyncio.get_running_loop()
        until_s = loop.time() + limit_s
        await asyncio.sleep(min(LINGER_S, limit_s) if self._state.open else 0)
        while self._state.tasks and loop.time() < until_s:
            await asyncio.wait(list(self._state.tasks), timeout=until_s - loop.time())
        cut = {connection for connection in self._state.open if connection.is_answering}
        left = list(self._state.tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=CLOSE_S)
        cut |= await self._close(limit_s=max(CLOSE_S, until_s - loop.time()))
        if self._ticker is not None:
            self._ticker.cancel()
        return len(cut)

    async def _close(self, *, limit_s: float) -> set[GatewayProtocol]:
        """Close every connection when its caller has taken all that was written: those that had not, and lost it."""
        for connection in list(self._state.open):
            connection.transport.close()
        if self._state.open:
            with suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._state.all_closed.wait()
        untaken = set(self._state.open)
        for connection in untaken:
            connection.transport.abort()
        return untaken

    async def run_out(self, *, limit_s: float, until: asyncio.Event) -> None:
        """Wait until every connection has ended by itself, or `until` is set, for `limit_s` at most."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + limit_s
        while self._state.open and loop.time() < until_s and not until.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(RUN_OUT_LOOK_S):
                    await until.wait()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_S)
            self._set_date()
            now_s = loop.time()
            for connection in list(self._state.open):
                connection.close_if_too_slow(now_s=now_s, arrival_s=REQUEST_ARRIVAL_S, idle_s=KEEP_ALIVE_S)
            self.on_tick()

    def _set_date(self) -> None:
        self._state.date_header = f"date: {formatdate(self._wall_clock(), usegmt=True)}\r\n".encode()
