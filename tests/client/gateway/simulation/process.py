"""A process of the simulation: what it does, what it holds, and how it dies at any step of its event loop."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sqlite3
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from tests.client.gateway.simulation.disk import Disk, FaultyOs

if TYPE_CHECKING:
    from ai_client.gateway.process.service import Service
    from ai_client.gateway.process.window_memory import WindowMemory

#: For as long as this process lives: see `world.run_apart`.
_GRAVEYARD: list[Process] = []
PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)


class Process:
    """Whatever is called in its context is its work, and stops with it: nothing is cleaned up but by the kernel."""

    def __init__(self, pid: int, loop: asyncio.AbstractEventLoop, *, say: Callable[[str], None]) -> None:
        self.pid = pid
        self.say = say
        self.context: Context = copy_context()
        self.context.run(PROCESS.set, self)
        self.is_frozen = self.was_killed = False
        self.frozen_at_s = 0.0
        self.died_at_s = self.ended_at_s = math.inf
        #: Whether what it sent was on disk as it was killed.
        self.remembered = True
        self.steps = 0
        #: At which step what befalls it: "dies" or "freezes".
        self.fate: tuple[int, str] | None = None
        self.service: Service | None = None
        #: The one that started it, to hand over to it.
        self.before: Process | None = None
        self.main_task: asyncio.Task[None] | None = None
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self.handlers: dict[int, Callable[[], None]] = {}
        #: Sockets that were left to it, by number.
        self.inherited: dict[int, Any] = {}
        #: What the kernel takes back, and how.
        self._held: dict[object, Callable[[], None]] = {}
        self.descriptors: set[int] = set()
        # What is suspended in it stays so: `finally` is not for the dead.
        self._suspended: list[asyncio.Task[Any]] = []
        self._loop = loop
        self.ended: asyncio.Future[None] = self._loop.create_future()

    @property
    def is_alive(self) -> bool:
        return not self.ended.done()

    def step(self, callback: Callable[..., Any], *args: Any) -> Any:
        """One step of its event loop, unless it has none left."""
        if self.was_killed or self.is_frozen:
            return None
        self.steps += 1
        if self.fate is not None and self.steps >= self.fate[0]:
            if self.fate[1] == "freezes":
                self.freeze()
            else:
                self.die("at that step")
            return None
        return callback(*args)

    def enter(self, callback: Callable[..., Any], *args: Any) -> Any:
        """A step that the kernel brings."""
        return self.context.copy().run(self.step, callback, *args)

    def freeze(self) -> None:
        """It stands, and holds what it has."""
        self.say(f"process {self.pid} stands")
        self.is_frozen, self.frozen_at_s = True, self._loop.time()
        self._suspend()

    def _suspend(self) -> None:
        for task in self.tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                self._suspended.append(task)

    def hold(self, thing: object, let_go: Callable[[], None]) -> None:
        self._held[thing] = let_go

    def let_go(self, thing: object) -> None:
        self._held.pop(thing, None)

    def signal(self, number: int) -> None:
        """Of another process, or of the manager. Raises ProcessLookupError."""
        if not self.is_alive:
            raise ProcessLookupError
        handler = self.handlers.get(number)
        if number == signal.SIGKILL or (handler is None and not self.is_frozen):
            self.die(f"of signal {number}")
        elif handler is not None:
            self._loop.call_soon(handler, context=self.context.copy())

    def die(self, of: str) -> None:
        """At once: nothing of it runs again."""
        if not self.is_alive:
            return
        self.say(f"process {self.pid} dies {of}, step {self.steps}")
        self.was_killed, self.died_at_s = True, self._loop.time()
        if self.service is not None:
            self.remembered = _remembers(self.service._window)
        self._suspend()
        for let_go in list(self._held.values()):
            let_go()
        self._held.clear()
        with Path(os.devnull).open() as nothing:
            for descriptor in self.descriptors:
                # Its locks and files are gone; the number is kept from others while somebody might close it.
                os.dup2(nothing.fileno(), descriptor)
        self.ended.set_result(None)

    def end(self) -> None:
        """By itself."""
        if self.is_alive:
            self.ended_at_s = self._loop.time()
            self.ended.set_result(None)

    def bury(self) -> None:
        """Nobody looks any more."""
        if self.was_killed:
            _GRAVEYARD.append(self)
            for descriptor in self.descriptors:
                os.close(descriptor)
        else:
            self.service = None


def _remembers(window: WindowMemory) -> bool:
    """False only where the disk had no room the last time that it was to be tried."""
    if window._sent_log is not None or not window._unkept:
        return True
    return window._unkept[-1][0] - window._tried_at_s > 1


class OwnedOs(FaultyOs):
    """`os` for modules that keep files open: what they open is their process's."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self._owners: dict[int, Process] = {}

    def open(self, *args: Any) -> int:
        descriptor = os.open(*args)
        process = PROCESS.get()
        if process is not None:
            process.descriptors.add(descriptor)
            self._owners[descriptor] = process
        return descriptor

    def close(self, descriptor: int) -> None:
        owner = self._owners.pop(descriptor, None)
        if owner is not None:
            owner.descriptors.discard(descriptor)
        os.close(descriptor)


class OwnedSqlite:
    """`sqlite3` for modules that keep databases open."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sqlite3, name)

    def connect(self, *args: Any, **given: Any) -> sqlite3.Connection:
        db = sqlite3.connect(*args, **given)
        process = PROCESS.get()
        if process is not None:
            process.hold(db, db.close)
        return db


def owned(kind: type[Any]) -> type[Any]:
    """That class, whose `close` leaves its file as a kill does: the kernel calls it."""

    class Owned(kind):  # type: ignore[misc]
        def __init__(self, *args: Any, **given: Any) -> None:
            super().__init__(*args, **given)
            process = PROCESS.get()
            if process is not None:
                process.hold(self, self.close)

    return Owned
