"""Accepts connections, ticks once a second, and drains."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from email.utils import formatdate
from typing import Any, cast

from aiohttp import web

from ai_client.gateway.http.asgi import Receive, Scope, Send
from ai_client.gateway.http.connection import Connection
from ai_client.gateway.http.crowd import Crowd
from ai_client.gateway.http.exchange import CLOSED, Exchange, Refused
from ai_client.gateway.http.shared import Bounds, Shared

LINGER_S = 0.1
# For the last words to callers whose requests are cut off.
CLOSE_S = 1.0
RUN_OUT_LOOK_S = 0.25
SERVER_NAME = "ai-client"

App = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]


class Connections(web.Server):
    """What the connections of one server share: aiohttp's server, told of requests and faults."""

    def __init__(self, app: App, *, bounds: Bounds) -> None:
        super().__init__(self._answer, handler_cancellation=True)
        self._app = app
        self.shared = Shared(bounds)
        self.crowd = Crowd(bounds)
        self.open: dict[Connection, asyncio.Transport] = {}
        self.all_closed = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    def __call__(self) -> Connection:
        """Called by the loop for each connection."""
        return Connection(self, self.shared, loop=self._loop)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Called by the connection."""
        super().connection_made(handler, transport)
        if isinstance(handler, Connection):
            self.open[handler] = transport
            self.all_closed.clear()
            handler.is_admitted = self.crowd.admits(handler)
            if not handler.is_admitted:
                handler.send_away()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Called by the connection: what was written to it has left this process or is lost."""
        super().connection_lost(handler, exc)
        if isinstance(handler, Connection):
            self.open.pop(handler, None)
            if handler.is_admitted:
                handler.is_admitted = False
                self.crowd.left(handler)
            if not self.open:
                self.all_closed.set()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast("Connection", request.protocol)
        task = cast("asyncio.Task[None]", asyncio.current_task(self._loop))
        self.tasks.add(task)
        connection.begin(request.content)
        if connection.is_admitted:
            self.crowd.busy(connection)
        exchange = Exchange(request, connection, arrival_s=self.shared.bounds.arrival_s)
        try:
            await self._app(exchange.read_head(), exchange.receive, exchange.send)
        except Refused as refused:
            if exchange.answered is None:
                await exchange.refuse(refused)
        finally:
            exchange.send_held()
            connection.end()
            if connection.is_admitted:
                self.crowd.idle(connection)
            self.tasks.discard(task)
        if exchange.answered is not None:
            return exchange.answered
        if connection.transport is None:
            return CLOSED  # nobody reads it
        raise RuntimeError("the application gave no answer")


class Server:
    """The connections of one ASGI application on given sockets."""

    def __init__(self, app: App, *, wall_clock: Callable[[], float], bounds: Bounds | None = None) -> None:
        self._app = app
        self._bounds = bounds or Bounds()
        self._wall_clock = wall_clock
        self._state: Connections | None = None
        self._servers: list[asyncio.Server] = []
        #: The next tick. No task: one that is cancelled ends a turn of the loop later, and may find none.
        self._ticker: asyncio.TimerHandle | None = None
        self.on_tick: Callable[[], None] = lambda: None
        #: How long an answer may stay unread now.
        self.unread_s: Callable[[], float] = lambda: self._bounds.unread_s

    @property
    def connections(self) -> int:
        """How many are open."""
        return 0 if self._state is None else len(self._state.open)

    @property
    def requests_in_flight(self) -> int:
        """How many are being answered."""
        return 0 if self._state is None else len(self._state.tasks)

    @property
    def refused(self) -> int:
        """How many connections were sent away, or closed for want of room."""
        return 0 if self._state is None else self._state.crowd.refused

    @property
    def faults(self) -> int:
        """How many requests a fault of ours has ended: they got a 500, or an answer that breaks off."""
        return 0 if self._state is None else self._state.shared.faults

    async def start(self, sockets: list[socket.socket]) -> None:
        """Begin to accept, on copies of the sockets: theirs stay open when this server stops.

        Raises OSError, and then accepts on none of them.
        """
        loop = asyncio.get_running_loop()
        if self._state is None:
            self._state = Connections(self._app, bounds=self._bounds)
        self._set_date(self._state)
        try:
            for sock in sockets:
                self._servers.append(await loop.create_server(self._state, sock=sock.dup()))
        except OSError:
            self.stop_accepting()
            raise
        if self._ticker is None:
            self._tick_later(self._state)

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
        state = self._state
        if state is None:
            return 0
        loop = asyncio.get_running_loop()
        until_s = loop.time() + limit_s
        await asyncio.sleep(min(LINGER_S, limit_s) if state.open else 0)
        while state.tasks and loop.time() < until_s:
            await asyncio.wait(list(state.tasks), timeout=until_s - loop.time())
        cut = {connection for connection in state.open if connection.is_answering}
        left = list(state.tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=CLOSE_S)
        cut |= await _close(state, limit_s=max(CLOSE_S, until_s - loop.time()))
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        return len(cut)

    async def run_out(
        self, *, limit_s: float, until: asyncio.Event, also: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait until every connection has ended by itself and `also` is false, or `until` is set: `limit_s` at most."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + limit_s
        while (self.connections or also()) and loop.time() < until_s and not until.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(RUN_OUT_LOOK_S):
                    await until.wait()

    async def finish(self, *, limit_s: float) -> None:
        """Wait until what is being answered now is taken, for `limit_s` at most; what comes meanwhile is not meant."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + limit_s
        state = self._state
        left = [] if state is None else list(state.open)
        while state is not None and loop.time() < until_s:
            left = [each for each in left if each in state.open and (each.is_answering or each.unread_bytes)]
            if not left:
                return
            await asyncio.sleep(RUN_OUT_LOOK_S)

    def _tick_later(self, state: Connections) -> None:
        self._ticker = asyncio.get_running_loop().call_later(self._bounds.tick_s, self._tick, state)

    def _tick(self, state: Connections) -> None:
        self._tick_later(state)  # first: whatever fails below, there is a next one
        self._set_date(state)
        now_s, unread_s = asyncio.get_running_loop().time(), self.unread_s()
        for connection in list(state.open):
            connection.close_if_too_slow(now_s=now_s, arrival_s=self._bounds.arrival_s, unread_s=unread_s)
        _spare_memory(state, most_bytes=self._bounds.unread_bytes)
        self.on_tick()

    def _set_date(self, state: Connections) -> None:
        state.shared.common_headers = {
            "date": formatdate(self._wall_clock(), usegmt=True),
            "server": SERVER_NAME,
        }


def _spare_memory(state: Connections, *, most_bytes: int) -> None:
    """Those who take least of what they asked for go, where all that nobody takes is too much."""
    unread = {each: count for each in state.open if (count := each.unread_bytes)}
    excess = sum(unread.values()) - most_bytes
    for connection in sorted(unread, key=unread.__getitem__, reverse=True):
        if excess <= 0:
            return
        excess -= unread[connection]
        state.crowd.refused += 1
        connection.give_up()


async def _close(state: Connections, *, limit_s: float) -> set[Connection]:
    """Close every connection when its caller has taken all that was written: those that had not, and lost it."""
    for transport in list(state.open.values()):
        transport.close()
    if state.open:
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await state.all_closed.wait()
    untaken = dict(state.open)
    for transport in untaken.values():
        transport.abort()
    return set(untaken)
