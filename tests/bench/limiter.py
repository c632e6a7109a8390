"""What admission costs: `python -m tests.bench.limiter`. Uncontended, and with waiters for one place."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import uvloop

from ai_client.admission.concurrency import AdaptiveConcurrency
from ai_client.admission.lane import Lane
from ai_client.admission.scheduler import Scheduler
from ai_client.admission.throttle import Throttle
from ai_client.admission.window import SlidingWindow
from ai_client.platform.clock import SystemClock, Timer

TIMES = 50_000
WAITERS = 1_000
ROUNDS = 9


@dataclass
class CountingClock(SystemClock):
    """Counts the timers that are set."""

    timers: int = 0

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Timer:
        self.timers += 1
        return super().call_at(when_s, callback)


def make(
    *, limit_rpm: int | None, limit_tpm: int | None, max_concurrent: int
) -> tuple[Scheduler, Lane, CountingClock]:
    clock = CountingClock()
    window = SlidingWindow(limit_requests=limit_rpm, limit_tokens=limit_tpm)
    scheduler = Scheduler(clock=clock, window=window, max_concurrent=max_concurrent)
    throttle = Throttle(full_rate_per_s=None, random_source=random.Random(1))  # noqa: S311
    return (
        scheduler,
        Lane("m", "k", throttle=throttle, concurrency=AdaptiveConcurrency(max_limit=10**6)),
        clock,
    )


async def uncontended(*, limit_rpm: int | None, limit_tpm: int | None) -> tuple[float, float]:
    """CPU µs of an admission, and of a whole permit's life: admit, sent, settle, release."""
    admits, lives = [], []
    for _ in range(ROUNDS):
        scheduler, lane, _ = make(limit_rpm=limit_rpm, limit_tpm=limit_tpm, max_concurrent=10**9)
        started_s = time.process_time()
        permits = [await scheduler.acquire(lane, tenant="t", priority=5, tokens=100) for _ in range(TIMES)]
        admits.append(time.process_time() - started_s)
        for permit in permits:
            scheduler.sent(permit)
            scheduler.settle(permit, 50)
            scheduler.release(permit)
        lives.append(time.process_time() - started_s)
    return min(admits) / TIMES * 1e6, min(lives) / TIMES * 1e6


async def contended() -> tuple[float, int, int]:
    """CPU µs an admission, timers set, and inversions, of 1,000 waiters for one place."""
    scheduler, lane, clock = make(limit_rpm=10**6, limit_tpm=None, max_concurrent=1)
    order: list[int] = []

    async def work(number: int) -> None:
        permit = await scheduler.acquire(lane, tenant="t", priority=5, tokens=1)
        order.append(number)
        scheduler.sent(permit)
        await asyncio.sleep(0)
        scheduler.release(permit)

    started_s = time.process_time()
    await asyncio.gather(*(work(number) for number in range(WAITERS)))
    cpu_s = time.process_time() - started_s
    inversions = sum(first > second for first, second in pairwise(order))
    return cpu_s / WAITERS * 1e6, clock.timers, inversions


async def main() -> None:
    print(f"{'uncontended':32}{'admit µs':>10}{'whole life µs':>16}")
    for name, rpm, tpm in (
        ("no limits", None, None),
        ("requests", 10**9, None),
        ("requests and tokens", 10**9, 10**12),
    ):
        admit_us, life_us = await uncontended(limit_rpm=rpm, limit_tpm=tpm)
        print(f"{name:32}{admit_us:10.2f}{life_us:16.2f}")
    cpu_us, timers, inversions = await contended()
    print(
        f"\n{WAITERS} waiters for one place: {cpu_us:.1f} µs each, {timers} timers, {inversions} inversions"
    )


if __name__ == "__main__":
    uvloop.run(main())
