"""One client takes another one's place, as a reload of the service does."""

from __future__ import annotations

import asyncio

from ai_client import AIAPIClient
from ai_client.platform.clock import ManualClock
from ai_client.testing import Simulator
from tests.client.admission.scheduling import until

KEY = "hs_test_0123456789abcdef"
OTHER_KEY = "hs_test_fedcba9876543210"
HELLO = [{"role": "user", "content": "hi"}]


async def test_a_successor_shares_the_window_with_those_who_still_wait() -> None:
    """Three a minute are three a minute, whichever of the two sends them; who waited first goes first."""
    clock = ManualClock()
    async with Simulator() as upstream:
        before = AIAPIClient(KEY, upstream.base_url, 10, 3, clock=clock)
        early = [asyncio.ensure_future(before.chat_completion(HELLO, max_tokens=2)) for _ in range(5)]
        await until(lambda: sum(task.done() for task in early) == 3)
        after = AIAPIClient(OTHER_KEY, upstream.base_url, 10, 3, clock=clock, predecessor=before)
        late = [asyncio.ensure_future(after.chat_completion(HELLO, max_tokens=2)) for _ in range(2)]
        await until(lambda: after.get_stats()["queued"] == 4)
        assert len(upstream.arrivals) == 3
        clock.advance(61)
        await asyncio.gather(*early)
        await until(lambda: sum(task.done() for task in late) == 1)
        assert len(upstream.arrivals) == 6
        await before.aclose()
        clock.advance(61)
        await asyncio.gather(*late)
        assert len(upstream.arrivals) == 7
        assert after.get_stats()["in_flight"] == 0
        await after.aclose()


async def test_a_successors_limits_hold_for_both() -> None:
    """Fewer at once, from the moment that it is made."""
    clock = ManualClock()
    async with Simulator() as upstream:
        before = AIAPIClient(KEY, upstream.base_url, 10, 100, clock=clock)
        after = AIAPIClient(KEY, upstream.base_url, 10, 2, clock=clock, predecessor=before)
        tasks = [
            asyncio.ensure_future(client.chat_completion(HELLO, max_tokens=2))
            for client in (before, after) * 2
        ]
        await until(lambda: sum(task.done() for task in tasks) == 2)
        assert after.get_stats()["queued"] == 2
        clock.advance(61)
        await asyncio.gather(*tasks)
        assert len(upstream.arrivals) == 4
        await before.aclose()
        await after.aclose()
