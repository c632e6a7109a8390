"""Batch work is spread over the minute, and interactive requests find room at any moment."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from pathlib import Path

import pytest

from ai_client.contract.options import Limits
from ai_client.gateway.app.pacing import BURST_S, LEAST_SHARE, MOST_HASTE, TARGET_SHARE, Pace, Pacer
from ai_client.testing import Simulator, SimulatorOptions
from tests.client.service_rig import running_service, until

RPM = Limits(50, 600, None)


def test_alone_a_batch_may_use_nearly_all_of_the_window() -> None:
    """97 in a hundred, evenly."""
    pace = Pace(RPM)
    assert pace.rate_per_s(0.0) * 60 == pytest.approx(TARGET_SHARE)
    assert pace.cost() == pytest.approx(1 / 600)


def test_interactive_traffic_of_the_last_minute_is_left_out() -> None:
    """And comes back when the minute is over."""
    pace = Pace(RPM)
    for second in range(60):
        for _ in range(5):
            pace.note(priority=5, tokens=0, now_s=float(second))
    assert pace.rate_per_s(60.0) * 60 == pytest.approx(TARGET_SHARE - 0.5)
    assert pace.rate_per_s(90.5) * 60 == pytest.approx(TARGET_SHARE - 0.25)
    assert pace.rate_per_s(200.0) * 60 == pytest.approx(TARGET_SHARE)


def test_traffic_that_has_just_begun_is_taken_to_go_on() -> None:
    """After 20 seconds at 300 a minute half of the window is left out, and not just the 100 that came."""
    pace = Pace(RPM)
    for second in range(20):
        for _ in range(5):
            pace.note(priority=5, tokens=0, now_s=float(second))
    assert pace.rate_per_s(20.0) * 60 == pytest.approx(TARGET_SHARE - 0.5)


def test_a_window_that_is_fuller_than_it_should_be_is_brought_back() -> None:
    """A batch that has spent 60 requests too many in its first half minute pauses, and one that lags makes haste."""
    ahead, behind = Pace(RPM), Pace(RPM)
    for second in range(30):
        for _ in range(int(second * 12 / 30)):
            ahead.note(priority=9, tokens=0, now_s=float(second))
        behind.note(priority=9, tokens=0, now_s=float(second))
    assert ahead.rate_per_s(18.0) * 60 < TARGET_SHARE
    assert behind.rate_per_s(30.0) * 60 == pytest.approx(TARGET_SHARE * MOST_HASTE)


def test_traffic_of_days_without_a_batch_is_not_remembered() -> None:
    """Nobody asks for a rate then, and memory must not grow."""
    pace = Pace(RPM)
    for second in range(10_000):
        pace.note(priority=5, tokens=0, now_s=float(second))
    assert pace.remembered_s <= 62
    assert pace.rate_per_s(9_999.0) * 60 == pytest.approx(TARGET_SHARE - 61 / 600)


def test_the_scarcer_of_requests_and_tokens_counts() -> None:
    """A few long requests fill the window of tokens."""
    pace = Pace(Limits(50, 600, 60_000))
    pace.note(priority=9, tokens=6_000, now_s=0.0)
    assert pace.cost() == pytest.approx(0.1)
    for second in range(60):
        pace.note(priority=0, tokens=500, now_s=float(second))
    assert pace.rate_per_s(60.0) * 60 < TARGET_SHARE - 0.4


def test_a_batch_never_starves() -> None:
    """Where interactive traffic takes all, a hundredth of the rate is left."""
    pace = Pace(RPM)
    for _ in range(700):
        pace.note(priority=5, tokens=0, now_s=10.0)
    assert pace.rate_per_s(11.0) * 60 == pytest.approx(LEAST_SHARE)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
@pytest.mark.parametrize(("interactive_s", "batch_s"), [(0, 0), (90, 0), (0, 90), (30, 0)])
def test_whoever_begins_first_neither_waits_for_the_other_nor_leaves_quota(
    share: float, interactive_s: int, batch_s: int, seed: int
) -> None:
    """Random callers beside a batch without end, on a window of 240 requests: 99 of 100 callers wait less than half a
    second, nobody waits one and a half, and 95 of 100 requests are used over three minutes.
    """
    chance = random.Random(seed)  # noqa: S311  arrivals, no secret
    host = SimulatedHost(chance, limit=240, interactive_per_s=240 * share / 60)
    host.run(interactive_s=interactive_s, batch_s=batch_s, until_s=270)
    waits_s = sorted(host.waits_s)
    assert waits_s[int(len(waits_s) * 0.99)] < 0.5
    assert waits_s[-1] < 1.5
    assert sum(host.uses) / len(host.uses) >= 0.95


class SimulatedHost:
    """A window of 60 seconds, callers that come at random, and a batch that is paced. Time goes in steps."""

    STEP_S = 0.02

    def __init__(self, chance: random.Random, *, limit: int, interactive_per_s: float) -> None:
        self._chance = chance
        self._limit = limit
        self._per_s = interactive_per_s
        self._pace = Pace(Limits(50, limit, None))
        self._window: deque[float] = deque()
        self._waiting: deque[float] = deque()
        self._level = 0.0
        self.waits_s: list[float] = []
        self.uses: list[float] = []

    def run(self, *, interactive_s: float, batch_s: float, until_s: float) -> None:
        """From nought; callers and batch begin when they are said to."""
        arrives_s = interactive_s + self._chance.expovariate(self._per_s)
        for now_s in (step * self.STEP_S for step in range(int(until_s / self.STEP_S))):
            while self._window and self._window[0] <= now_s - 60:
                self._window.popleft()
            while arrives_s <= now_s:
                self._waiting.append(arrives_s)
                arrives_s += self._chance.expovariate(self._per_s)
            self._serve_callers(now_s)
            if now_s >= batch_s:
                self._serve_batch(now_s)
            if now_s >= batch_s + 60:
                self.uses.append(len(self._window) / self._limit)

    def _serve_callers(self, now_s: float) -> None:
        while self._waiting and len(self._window) < self._limit:
            self.waits_s.append(now_s - self._waiting.popleft())
            self._send(5, now_s)

    def _serve_batch(self, now_s: float) -> None:
        rate, cost = self._pace.rate_per_s(now_s), self._pace.cost()
        self._level = min(max(cost, rate * BURST_S), self._level + rate * self.STEP_S)
        while self._level + 1e-9 >= cost and len(self._window) < self._limit:
            self._level -= cost
            self._send(9, now_s)

    def _send(self, priority: int, now_s: float) -> None:
        self._window.append(now_s)
        self._pace.note(priority=priority, tokens=0, now_s=now_s)


async def test_turns_come_in_order_and_at_the_rate() -> None:
    """First come, first served; a second's worth at once after a pause, and no more."""
    now_s = 0.0
    pacer = Pacer(Limits(50, 6000, None), clock=lambda: now_s)
    order: list[int] = []

    async def one(number: int) -> None:
        await pacer.turn()
        order.append(number)

    now_s = 30.0
    tasks = [asyncio.create_task(one(number)) for number in range(200)]
    await until(lambda: len(order) == 97, what="a second's worth")
    assert order == list(range(97))
    now_s = 30.5
    await until(lambda: len(order) == 145, what="half a second's worth more")
    now_s = 40.0
    await until(lambda: len(order) == 200, what="the rest")
    assert order == list(range(200))
    await asyncio.gather(*tasks)


async def test_one_that_is_cancelled_leaves_its_place_to_the_next() -> None:
    """Nothing leaks."""
    now_s = 0.0
    pacer = Pacer(RPM, clock=lambda: now_s)
    tasks = [asyncio.create_task(pacer.turn()) for _ in range(3)]
    await until(lambda: pacer.waiting == 3, what="three to wait")
    tasks[0].cancel()
    await asyncio.wait([tasks[0]])
    assert pacer.waiting == 2
    now_s = 60.0
    await asyncio.gather(*tasks[1:])
    assert pacer.waiting == 0


async def test_no_limits_mean_no_waiting() -> None:
    """There is nothing to spread."""
    pacer = Pacer(Limits(50, None, None), clock=time.monotonic)
    for _ in range(1000):
        await pacer.turn()
    assert pacer.waiting == 0


async def test_interactive_requests_do_not_wait_behind_a_batch(tmp_path: Path) -> None:
    """A batch that would take the minute's quota at once is spread, so that others are answered at once meanwhile."""
    extra = "rate_limit = 240\nmax_concurrent_requests = 400"
    async with (
        Simulator(SimulatorOptions(limit_rpm=240)) as simulator,
        running_service(tmp_path, simulator, extra=extra) as rig,
        rig.client() as client,
    ):

        def ask(number: int, priority: int) -> asyncio.Task[int]:
            body = {
                "model": "gpt-4.1",
                "max_tokens": 1,
                "messages": [{"role": "user", "content": f"{number}"}],
            }
            headers = {"x-priority": str(priority)}

            async def status() -> int:
                return (await client.post("/v1/chat/completions", json=body, headers=headers)).status_code

            return asyncio.create_task(status())

        batch = [ask(number, 9) for number in range(90)]
        await until(lambda: simulator.counts.answered >= 8, what="the batch to be under way")
        began_s = time.monotonic()
        assert [await ask(1000 + number, 5) for number in range(5)] == [200] * 5
        took_s = time.monotonic() - began_s
        assert took_s < 8
        assert simulator.counts.arrivals < 80
        for task in batch:
            task.cancel()
