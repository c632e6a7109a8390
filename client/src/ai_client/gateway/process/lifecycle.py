"""From start to end of a service's process: signals, what systemd is told, and tasks that end with it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from ai_client.platform.clock import Clock
from ai_client.platform.systemd import Notifier


class Lifecycle:
    """The events and tasks that a process lives by.

    `over` is set when it is this process's turn to end; `stop` when somebody told it to, with `over`.
    """

    def __init__(self, environment: Mapping[str, str], *, clock: Clock) -> None:
        self.notifier = self._own_notifier = Notifier(environment)
        self._show_life = self.notifier.watchdog
        self.stop = asyncio.Event()
        self.over = asyncio.Event()
        self._clock = clock
        self._tasks: set[asyncio.Task[Any]] = set()
        self._last_watchdog_s = 0.0
        self._also: list[Callable[[], None]] = []

    def handle_signals(self, reload: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """SIGTERM and SIGINT end it, SIGHUP reloads."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop_soon)
        loop.add_signal_handler(signal.SIGHUP, lambda: self.in_background(reload()))

    def stop_soon(self) -> None:
        """It was told to end."""
        self.stop.set()
        self.over.set()

    @property
    def silent_s(self) -> float | None:
        """For how long a process of this service may show no life; None where the manager has no watchdog."""
        every_s = self._own_notifier.watchdog_s
        return None if every_s is None else 2 * every_s

    def succeeded_by(self, pid: int, *, show_life: Callable[[], None]) -> None:
        """Another process is the service now; systemd is told, and nothing more from here: `show_life` is."""
        self.notifier.main_process(pid)
        # Of another process than the main one systemd takes nothing, and writes a warning for each.
        self._own_notifier, self.notifier = self.notifier, Notifier({})
        self._show_life = show_life

    def stand_in(self) -> None:
        """The other process is gone. Where systemd never took it for the main one, this one must be heard."""
        self.notifier = self._own_notifier
        self._show_life = self.notifier.watchdog

    def in_background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that is kept until it is done, and cancelled with the process."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def end_tasks(self) -> None:
        """Those that still run: cancelled, and ended when it returns."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def on_tick_too(self, work: Callable[[], None]) -> None:
        """Has `work` done with each tick."""
        self._also.append(work)

    def on_tick(self) -> None:
        """Called by the server again and again: tells systemd, or the next process, that the event loop turns."""
        loop = asyncio.get_running_loop()
        for work in self._also:
            loop.call_soon(work)  # each by itself: what one of them raises is logged, and keeps nothing else
        every_s = self._own_notifier.watchdog_s
        now_s = self._clock.monotonic()
        if every_s is not None and now_s - self._last_watchdog_s >= every_s / 2:
            self._last_watchdog_s = now_s
            self._show_life()
