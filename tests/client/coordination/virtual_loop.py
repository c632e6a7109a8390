"""An event loop whose time passes when nothing else is to do, and never by itself: what runs on it is repeatable."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


class _NoWaiting(selectors.SelectSelector):
    """Of a loop without sockets."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "all tasks wait for each other"
        self.now_s += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self.passing = _NoWaiting()
        super().__init__(self.passing)
        self.set_task_factory(_made)

    def time(self) -> float:
        return self.passing.now_s


@dataclass(eq=False)
class SimulatedProcess:
    """Tasks that end together. Where it is dead, or until it goes on, nothing from outside reaches it."""

    name: str
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    is_alive: bool = True
    goes_on_at_s: float = 0.0

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        token = _CURRENT.set(self)
        try:
            return asyncio.get_running_loop().create_task(work)
        finally:
            _CURRENT.reset(token)

    def kill(self) -> None:
        """As by SIGKILL: nothing that it does from now on has an effect outside of it."""
        self.is_alive = False
        for task in list(self.tasks):
            task.cancel()

    async def reached(self) -> None:
        """Returns where something from outside can reach it."""
        while True:
            left_s = self.goes_on_at_s - asyncio.get_running_loop().time()
            if not self.is_alive:
                await asyncio.Event().wait()
            if left_s <= 0:
                return
            await asyncio.sleep(left_s)

    async def wait(self, seconds: float) -> None:
        """Its way to sleep."""
        await asyncio.sleep(seconds)
        await self.reached()


_CURRENT: ContextVar[SimulatedProcess | None] = ContextVar("process", default=None)


def _made(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **given: Any) -> asyncio.Task[Any]:
    task = asyncio.Task(coro, loop=loop, **given)
    process = _CURRENT.get()
    if process is not None:
        process.tasks.add(task)
        task.add_done_callback(process.tasks.discard)
    return task
