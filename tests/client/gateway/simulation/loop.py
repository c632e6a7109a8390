"""An event loop whose time passes only when nothing else is to be done, over a network in memory."""

from __future__ import annotations

import asyncio
import contextvars
import random
import selectors
import socket
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any
from weakref import WeakKeyDictionary

from tests.client.gateway.simulation.network import FakeSocket, Network, SimServer, SimTransport
from tests.client.gateway.simulation.process import PROCESS

WALL_S = 1_700_000_000.0


class StuckError(AssertionError):
    """Nothing is to be done, and nothing will ever happen: somebody waits for ever."""


class _Selector(selectors.SelectSelector):
    """Instead of waiting for descriptors it moves the clock."""

    loop: SimLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        """Called by the loop where nothing is ready."""
        self.loop.pass_time(timeout)
        return []


class SimLoop(asyncio.SelectorEventLoop):
    """Sockets, names, threads and signals are played; all else is asyncio's own."""

    def __init__(self, network: Network, source: random.Random) -> None:
        self.now_s = 1000.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)
        self.network = network
        self.faults: list[str] = []
        self._source = source
        self._connected: WeakKeyDictionary[socket.socket, Any] = WeakKeyDictionary()
        network.loop = self
        self.set_exception_handler(self._note_fault)
        self.set_task_factory(_make_task)

    def time(self) -> float:
        """Seconds that have passed in the simulation."""
        return self.now_s

    def pass_time(self, timeout: float | None) -> None:
        """To the next timer."""
        if timeout is None:
            raise StuckError("everybody waits, and nothing will ever happen")
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        self.now_s += timeout
        if timers and 0 < timers[0].when() - self.now_s < 1e-6:
            self.now_s = timers[0].when()

    def _note_fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        del loop
        self.faults.append(
            f"{context.get('message')}: {context.get('exception')!r} {context.get('task', '')}"
        )

    # Whose work it is.

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        """As asyncio's; a process that is gone does nothing any more."""
        context = contextvars.copy_context() if context is None else context
        process = context.get(PROCESS)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        return super().call_soon(process.step, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's."""
        context = contextvars.copy_context() if context is None else context
        process = context.get(PROCESS)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        return super().call_at(when, process.step, callback, *args, context=context)

    # What would leave the simulation.

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """In this thread, a little later."""
        done: asyncio.Future[Any] = self.create_future()

        def run() -> None:
            if done.cancelled():
                return
            try:
                done.set_result(func(*args))
            except Exception as error:  # noqa: BLE001 - whatever a thread raises is its caller's
                done.set_exception(error)

        self.call_later(self._source.uniform(0, 0.005), run)
        return done

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> list[Any]:  # type: ignore[override]
        """Every name is known, unless the network says otherwise."""
        await asyncio.sleep(self._source.uniform(0, 0.01))
        self.network.check_names(str(host))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (str(host), port))]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """As far as the other side's queue."""
        process = PROCESS.get()
        if process is not None:
            process.hold(sock, sock.close)
        await self.network.reach(address)
        self._connected[sock] = address

    async def create_connection(self, protocol_factory: Any, *_: Any, **given: Any) -> Any:  # type: ignore[override]
        """Over a socket that `sock_connect` has connected, or to a host and a port."""
        sock: socket.socket = given["sock"]
        transport = self.network.connect(self._connected.pop(sock), protocol_factory, uid=0, sock=sock)
        return transport, transport.get_protocol()

    async def create_unix_connection(self, protocol_factory: Any, path: Any = None, **given: Any) -> Any:  # type: ignore[override]
        """To whoever listens on the path, or over an end of a socket pair."""
        if given.get("sock") is not None:
            transport: SimTransport = given["sock"].transport
            transport.begin(protocol_factory)
            return transport, transport.get_protocol()
        await self.network.reach(str(path))
        transport = self.network.connect(str(path), protocol_factory, uid=0)
        return transport, transport.get_protocol()

    async def create_server(self, protocol_factory: Any, *_: Any, **given: Any) -> Any:  # type: ignore[override]
        """Accepts on a played socket."""
        sock: FakeSocket = given["sock"]
        return SimServer(self.network, protocol_factory, sock)

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> None:
        """Of the process that calls it."""
        process = PROCESS.get()
        assert process is not None
        process.handlers[sig] = lambda: callback(*args)

    def played(
        self, address: object, factory: Callable[[], asyncio.BaseProtocol], *, uid: int
    ) -> SimTransport:
        """A connection of somebody outside of the service."""
        return self.network.connect(address, factory, uid=uid)


def _make_task(loop: asyncio.AbstractEventLoop, coro: Any, context: Any = None) -> asyncio.Task[Any]:
    task = asyncio.Task(coro, loop=loop, context=context)
    process = (context or contextvars.copy_context()).get(PROCESS)
    if process is not None:
        process.tasks.add(task)
    return task


class SimExecutor:
    """A thread of the service's own: its work is done in this one, a little later, or when somebody waits for it."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._loop = _running()

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """As `concurrent.futures` has it."""
        future = _Work(work)
        if self._loop is None or self._loop.is_closed():
            future.run()
        else:
            self._loop.call_later(0.2, future.run)
        return future

    def shutdown(self, wait: bool = True) -> None:
        """Whoever waits has waited already."""


class _Work(Future[Any]):
    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self._work = work
        self._has_begun = False

    def run(self) -> None:
        if self._has_begun:
            return
        self._has_begun = True
        try:
            self.set_result(self._work())
        except Exception as error:  # noqa: BLE001 - whatever a thread raises is its caller's
            self.set_exception(error)

    def result(self, timeout: float | None = None) -> Any:
        self.run()
        return super().result(timeout)


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
