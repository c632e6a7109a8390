"""Tokens per minute on a hand-driven clock: never over where the reserve is an upper bound, and nearly all used."""

from __future__ import annotations

import asyncio
import heapq
import random
from bisect import bisect_left
from itertools import accumulate

import pytest

from tests.client.admission.scheduling import Rig, turn

LIMIT_TOKENS = 100_000
RESERVE = 1200
MINUTES = 6


class Upstream:
    """Counts what each request really used, at its arrival, and answers after a while."""

    def __init__(self, rig: Rig, dice: random.Random, *, latency_s: float) -> None:
        self._rig = rig
        self._dice = dice
        self._latency_s = latency_s
        self._answers: list[tuple[float, str, int]] = []
        self.arrivals: list[tuple[float, int]] = []

    def take_new(self) -> None:
        now_s = self._rig.clock.monotonic()
        answering = {name for _, name, _ in self._answers}
        for name in [name for name in self._rig.permits if name not in answering]:
            used = self._dice.randint(RESERVE // 4, RESERVE)
            self._rig.scheduler.sent(self._rig.permits[name])
            self.arrivals.append((now_s + self._dice.uniform(0, 0.1), used))
            heapq.heappush(
                self._answers, (now_s + self._latency_s * self._dice.uniform(0.5, 1.5), name, used)
            )

    def answer_due(self) -> None:
        while self._answers and self._answers[0][0] <= self._rig.clock.monotonic():
            _, name, used = heapq.heappop(self._answers)
            permit = self._rig.permits.pop(name)
            self._rig.scheduler.settle(permit, used)
            self._rig.scheduler.release(permit)

    def fullest_minute(self) -> int:
        arrivals = sorted(self.arrivals)
        times = [at_s for at_s, _ in arrivals]
        sums = [0, *accumulate(used for _, used in arrivals)]
        return max(sums[bisect_left(times, at_s + 60.0)] - sums[index] for index, at_s in enumerate(times))


@pytest.mark.parametrize("latency_s", [0.5, 5.0])
async def test_the_token_limit_is_never_passed_and_nearly_all_of_it_is_used(latency_s: float) -> None:
    """At least 95 % of six minutes' tokens, under load, with reserves of which a third is not used."""
    rig = Rig(limit_tokens=LIMIT_TOKENS, max_concurrent=50)
    upstream = Upstream(rig, random.Random(5), latency_s=latency_s)  # noqa: S311 - a seeded run
    tasks = [rig.start(str(index), tokens=RESERVE) for index in range(1200)]
    start_s = rig.clock.monotonic()
    while rig.clock.monotonic() < start_s + MINUTES * 60:
        await turn(3)
        upstream.take_new()
        upstream.answer_due()
        rig.clock.advance(0.05)
    assert upstream.fullest_minute() <= LIMIT_TOKENS
    used = sum(tokens for at_s, tokens in upstream.arrivals if at_s < start_s + MINUTES * 60)
    assert used >= 0.95 * LIMIT_TOKENS * MINUTES
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
