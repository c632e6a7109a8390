"""A scheduler on a hand-driven clock, for tests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from ai_client.admission.lane import Lane, Permit
from ai_client.admission.scheduler import Scheduler
from ai_client.admission.throttle import Throttle
from ai_client.admission.window import SlidingWindow, WindowEntry
from ai_client.contract.options import QueueOptions
from ai_client.platform.clock import ManualClock


async def turn(times: int = 6) -> None:
    """Lets every task that can run do so; no time passes on a hand-driven clock."""
    for _ in range(times):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool], *, deadline_s: float = 10.0) -> None:
    """Waits for `condition` in real time, and fails after `deadline_s`."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - the condition may be anything
            await asyncio.sleep(0.001)


@dataclass
class FixedConcurrency:
    limit: int = 10_000


class RecordingWindow(SlidingWindow):
    """Remembers every entry in the order of admission: tasks may hear of it in another order."""

    def __init__(self, *, limit_requests: int | None, limit_tokens: int | None) -> None:
        super().__init__(limit_requests=limit_requests, limit_tokens=limit_tokens)
        self.admitted: list[WindowEntry] = []

    def reserve(self, entry: WindowEntry) -> None:
        super().reserve(entry)
        self.admitted.append(entry)


@dataclass
class Rig:
    """What was admitted, in order, as (name, time)."""

    limit_requests: int | None = None
    limit_tokens: int | None = None
    max_concurrent: int = 10_000
    options: QueueOptions = field(default_factory=QueueOptions)

    def __post_init__(self) -> None:
        self.clock = ManualClock()
        self.window = RecordingWindow(limit_requests=self.limit_requests, limit_tokens=self.limit_tokens)
        self.scheduler = Scheduler(
            clock=self.clock, window=self.window, max_concurrent=self.max_concurrent, options=self.options
        )
        self.lane = self.make_lane()
        self.order: list[str] = []
        self.permits: dict[str, Permit] = {}

    def make_lane(self, model: str = "m", *, limit: int = 10_000) -> Lane:
        full = None if self.limit_requests is None else self.limit_requests / 60
        throttle = Throttle(full_rate_per_s=full, random_source=random.Random(1))  # noqa: S311
        return Lane(model, "k", throttle=throttle, concurrency=FixedConcurrency(limit))

    def start(
        self,
        name: str,
        *,
        tenant: str = "default",
        priority: int = 5,
        tokens: int = 0,
        deadline_s: float | None = None,
        lane: Lane | None = None,
    ) -> asyncio.Task[Permit]:
        """A task that asks for a permit, and notes it under `name` when it has it."""

        async def ask() -> Permit:
            permit = await self.scheduler.acquire(
                lane or self.lane,
                tenant=tenant,
                priority=priority,
                tokens=tokens,
                deadline_at_s=None if deadline_s is None else self.clock.monotonic() + deadline_s,
            )
            self.order.append(name)
            self.permits[name] = permit
            return permit

        return asyncio.get_running_loop().create_task(ask())

    async def finish(self, name: str) -> None:
        """Sends and releases what `name` got."""
        permit = self.permits.pop(name)
        self.scheduler.sent(permit)
        self.scheduler.release(permit)
        await turn()

    async def advance(self, by_s: float) -> None:
        self.clock.advance(by_s)
        await turn()
