"""The service manager: starts the service, holds its sockets, and does what systemd does when its main process ends.

As ansible's ai-client.service has it: Type=notify, NotifyAccess=main, Restart=always, RestartSec=200ms,
KillMode=control-group, WatchdogSec=30, TimeoutStopSec=drain_seconds + 15.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context

from ai_client.platform.systemd import Notifier
from tests.client.gateway.simulation.process import PROCESS, Process

RESTART_S = 0.2
WATCHDOG_S = 30.0
STOP_S = 45.0
ENVIRONMENT = {"NOTIFY_SOCKET": "/run/systemd/notify", "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}


class Manager:
    """One unit."""

    current: Manager | None = None

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        say: Callable[[str], None],
        begin: Callable[[Process, dict[str, str]], None],
    ) -> None:
        self._loop = loop
        self._say = say
        self._begin = begin
        self.processes: list[Process] = []
        self.main: Process | None = None
        self._pinged_at_s = self._started_at_s = 0.0
        self._is_stopping = False
        self._starting: asyncio.Task[None] | None = None
        #: When the unit was being stopped: from, to.
        self.stops: list[tuple[float, float]] = []

    @property
    def has_just_started(self) -> bool:
        """The main process may not have come to its own sockets yet."""
        return self.main is None or not self.main.is_alive or self._loop.time() - self._started_at_s < 1

    @property
    def group(self) -> list[Process]:
        return [process for process in self.processes if process.is_alive]

    def start(self) -> Process:
        """The unit's main process, anew."""
        self.main = self.spawn(dict(ENVIRONMENT))
        self._pinged_at_s = self._started_at_s = self._loop.time()
        return self.main

    def spawn(self, environment: dict[str, str]) -> Process:
        """A process of the unit."""
        process = Process(4000 + len(self.processes), self._loop, say=self._say)
        self.processes.append(process)
        self._loop.create_task(self._await_end(process), context=Context())
        self._begin(process, environment)
        return process

    async def _await_end(self, process: Process) -> None:
        while process.is_alive:
            with suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await asyncio.shield(process.ended)
            overdue_s = self._loop.time() - self._pinged_at_s
            if process.is_alive and process is self.main and overdue_s > WATCHDOG_S:
                process.die("of its watchdog")
        if process is self.main and not self._is_stopping:
            self._say(f"the main process {process.pid} is gone")
            self._starting = self._loop.create_task(self._start_again())

    async def _start_again(self) -> None:
        await self._end_group()
        await asyncio.sleep(RESTART_S)
        if not self._is_stopping:
            self.start()

    async def _end_group(self) -> None:
        group = self.group
        for process in group:
            process.signal(signal.SIGTERM)
        if group:
            await asyncio.wait([process.ended for process in group], timeout=STOP_S)
        for process in group:
            with suppress(ProcessLookupError):
                process.signal(signal.SIGKILL)

    async def stop(self) -> None:
        """As `systemctl stop`."""
        began_s = self._loop.time()
        self._is_stopping = True
        if self._starting is not None:
            await self._starting
        await self._end_group()
        self.stops.append((began_s, self._loop.time()))

    async def restart(self) -> None:
        """As `systemctl restart`."""
        await self.stop()
        self._is_stopping = False
        self.start()

    def kill_group(self, pid: int, number: int) -> None:
        """As `os.killpg`. Raises ProcessLookupError."""
        self.named(pid).signal(number)

    def named(self, pid: int) -> Process:
        """A living one. Raises ProcessLookupError."""
        for process in self.group:
            if process.pid == pid:
                return process
        raise ProcessLookupError

    def notified(self, process: Process | None, text: str) -> None:
        """What a process says of itself: only the main one is heard."""
        if process is not self.main:
            return
        for line in text.splitlines():
            name, _, value = line.partition("=")
            if name == "WATCHDOG":
                self._pinged_at_s = self._loop.time()
            elif name == "MAINPID":
                # One that does not exist any more is not taken.
                with suppress(ProcessLookupError):
                    self.main = self.named(int(value))


class PlayedNotifier(Notifier):
    """Tells the played manager."""

    def _send(self, text: str) -> None:
        if self.is_active and Manager.current is not None:
            Manager.current.notified(PROCESS.get(), text)
