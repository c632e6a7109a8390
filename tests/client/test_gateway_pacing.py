"""Batch work is spread over the minute, and interactive requests find room at any moment."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from ai_client.gateway.pacing import LEAST_SHARE, TARGET_SHARE, Pace, Pacer
from ai_client.options import Limits
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
    for second in range(30):
        for _ in range(10):
            pace.note(priority=5, tokens=0, now_s=float(second))
    assert pace.rate_per_s(30.0) * 60 == pytest.approx(TARGET_SHARE - 0.5)
    assert pace.rate_per_s(75.5) * 60 == pytest.approx(TARGET_SHARE - 0.25)
    assert pace.rate_per_s(200.0) * 60 == pytest.approx(TARGET_SHARE)


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
    pace.note(priority=0, tokens=30_000, now_s=0.0)
    assert pace.rate_per_s(1.0) * 60 == pytest.approx(TARGET_SHARE - 0.5)


def test_a_batch_never_starves() -> None:
    """Where interactive traffic takes all, a hundredth of the rate is left."""
    pace = Pace(RPM)
    for _ in range(700):
        pace.note(priority=5, tokens=0, now_s=10.0)
    assert pace.rate_per_s(11.0) * 60 == pytest.approx(LEAST_SHARE)


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
        assert took_s < 2
        assert simulator.counts.arrivals < 80
        for task in batch:
            task.cancel()
