"""The process that comes after this one: started, let go, and stood in for where it is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ai_client.client import AIAPIClient
from ai_client.configure.launch import Launch
from ai_client.gateway.app.app import GatewayApp
from ai_client.gateway.app.forwarder import Forwarder
from ai_client.gateway.http.server import Server
from ai_client.gateway.http.sockets import Listeners
from ai_client.gateway.process.accepting import accept_again
from ai_client.gateway.process.handover import Estate, Successor
from ai_client.gateway.process.lifecycle import Lifecycle
from ai_client.gateway.process.limit_memory import LimitMemory
from ai_client.gateway.process.quota import Quota
from ai_client.gateway.process.window_memory import WindowMemory
from ai_client.gateway.watch.metrics_listener import MetricsListener
from ai_client.platform import json_log
from ai_client.platform.clock import Clock

# The manager's signal may come before the end of the channel is seen.
_LOST_WITHIN_S = 0.1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """Of a service, those that a hand-over stops and begins again."""

    server: Server
    app: GatewayApp
    metrics: MetricsListener
    quota: Quota
    window: WindowMemory
    limits: LimitMemory
    life: Lifecycle
    client: Callable[[], AIAPIClient]
    #: Whether it looks after a process that had handed over to this one.
    looks_after: Callable[[], bool]


class Succession:
    """Invariant: while this process lives, somebody accepts: itself unless `is_over`, the next one else."""

    def __init__(self, parts: Parts, *, clock: Clock) -> None:
        self._parts = parts
        self._clock = clock
        self._next: Successor | None = None
        self._forwarder: Forwarder | None = None
        self._since_s = 0.0
        self._is_lost, self._is_decided = asyncio.Event(), asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Another process serves."""
        return self._next is not None

    async def hand_over(self, listeners: Listeners, *, launch: Launch, environment: Mapping[str, str]) -> int:
        """Let a new process serve, of the release that is in place now: its pid. Raises HandoverError."""
        parts = self._parts
        estate = Estate.of(listeners, parts.metrics.listening)
        successor = await Successor.start(launch, environment=environment, estate=estate)
        self._forwarder = Forwarder(Path(listeners.unix.getsockname()))
        parts.server.stop_accepting()
        parts.metrics.stop_accepting()
        parts.app.hand_over(self._forwarder)
        self._since_s = self._clock.wall()
        try:
            leases = await parts.quota.hand_over()
            window = {**parts.client().hand_over(), **leases}
            await successor.go(window, beats=parts.life.silent_s is not None)
        except BaseException:
            # Wherever it ended: somebody has to serve.
            await self._serve_again(listeners, until=parts.life.stop)
            raise
        self._next = successor
        parts.life.succeeded_by(successor.pid, show_life=successor.beat)
        successor.reap()
        parts.life.in_background(self._watch(successor))
        parts.life.over.set()
        _log.info("handed_over", extra=json_log.fields({"to": successor.pid}))
        return successor.pid

    async def _watch(self, successor: Successor) -> None:
        try:
            if await successor.is_lost():
                self._is_lost.set()
                self._is_decided.set()
            else:
                await successor.gone()
        finally:
            successor.close()

    async def _hear_of_stop(self) -> None:
        await self._parts.life.stop.wait()
        self._is_decided.set()

    async def _serve_again(self, listeners: Listeners, *, until: asyncio.Event) -> None:
        """The other process does not serve after all, or no more."""
        parts = self._parts
        # What it has sent meanwhile counts here.
        parts.client().restore(parts.window.sent_since(self._since_s))
        parts.limits.recall(parts.client())
        parts.client().resume()
        parts.quota.take_back()
        parts.app.take_over_again()
        forwarder, self._forwarder = self._forwarder, None
        await accept_again(lambda: parts.server.start(listeners.all()), until=until)
        await accept_again(parts.metrics.resume, until=until)
        if forwarder is not None:
            # What it has passed on comes back here, and ends as everything does.
            parts.life.in_background(forwarder.aclose())

    async def run_out(self, listeners: Listeners, *, limit_s: float, stop_s: float) -> float:
        """What was begun here ends, for `limit_s` at most and `stop_s` once told to stop: how much of that is left.

        What was begun in a process before this one ends earlier: nobody else would see that it stands.
        Where the next process is lost meanwhile, newcomers are served here: the manager starts another one only when
        this one has ended.
        """
        parts = self._parts
        parts.life.in_background(self._hear_of_stop())
        await parts.server.run_out(limit_s=limit_s, until=self._is_decided, also=parts.looks_after)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOST_WITHIN_S):
                await self._is_lost.wait()
        if not self._is_lost.is_set():
            return stop_s
        _log.warning("successor_lost", extra=json_log.fields({"requests": parts.server.requests_in_flight}))
        self._next = None
        parts.life.stand_in()
        ended = asyncio.Event()
        serving = parts.life.in_background(self._serve_again(listeners, until=ended))
        left_s = await self.finish(stop_s=stop_s)
        ended.set()
        await serving
        return left_s

    async def finish(self, *, stop_s: float) -> float:
        """Goes on accepting until what was begun before has ended, for half of the time that a stop may take.

        The manager has lost its main process and waits for this one. How long those who came meanwhile may take.
        """
        before_s = self._clock.monotonic()
        await self._parts.server.finish(limit_s=stop_s / 2)
        return min(stop_s / 2, stop_s - (self._clock.monotonic() - before_s))

    async def aclose(self) -> None:
        """What was passed on ends."""
        if self._forwarder is not None:
            await self._forwarder.aclose()
