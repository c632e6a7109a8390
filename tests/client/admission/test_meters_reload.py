"""A reload that raises one limit and lowers another in one step: what was sent before counts under both."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from ai_client.admission.meters import Cost, Meters
from ai_client.contract.limits import ModelLimits
from ai_client.platform.clock import ManualClock
from tests.client.admission.scheduling import turn

TIGHT, WIDE = 5, 20
A, B, UPSTREAM = "router/a", "router/b", "router"


class _Run:
    """Requests of two models of one upstream at random moments, over a change of their limits."""

    def __init__(self, seed: int, limits: dict[str, ModelLimits]) -> None:
        self.source, self.clock = random.Random(seed), ManualClock()  # noqa: S311 - no secret
        self.limits = limits
        self.meters = Meters(limits, clock=self.clock, network_delay_s=0.0)
        #: When, of which model, at which cost, and under which limits it was asked for.
        self.sent: list[tuple[float, str, Cost, dict[str, ModelLimits]]] = []
        self.tasks: list[asyncio.Task[None]] = []

    def change(self, limits: dict[str, ModelLimits]) -> None:
        self.limits = limits
        self.meters = Meters(limits, clock=self.clock, network_delay_s=0.0, before=self.meters)

    async def _one(self, label: str, cost: Cost) -> None:
        asked_under = self.limits
        permits = await self.meters.acquire(
            label=label, upstream=UPSTREAM, cost=cost, priority=self.source.randint(0, 9), deadline_at_s=None
        )
        while self.source.random() < 0.3:  # it is written later
            await self.clock.sleep_until(self.clock.monotonic() + self.source.random())
        for permit in permits:
            permit.sent(self.clock.monotonic())
        self.sent.append((self.clock.monotonic(), label, cost, asked_under))

    async def go(self, count: int) -> None:
        for _ in range(count):
            cost = Cost(self.source.randint(1, 25), self.source.randint(0, 10))
            self.tasks.append(asyncio.create_task(self._one(self.source.choice((A, B)), cost)))
            await turn()
            self.clock.advance(self.source.expovariate(2.0))

    async def end(self) -> None:
        while not all(task.done() for task in self.tasks):
            await turn()
            self.clock.advance(1.0)

    def check(
        self, label: str | None, limit: int, before: int, span_s: float, amount: Callable[[Cost], int]
    ) -> None:
        """Whatever came under the new limits found them kept, with all that had gone before.

        What was admitted before, and is only written now, need not: no minute passes the larger limit.
        """
        mine = [each for each in self.sent if label in (None, each[1])]
        for at_s, _, _, asked_under in mine:
            used = sum(amount(cost) for s, _, cost, _ in mine if at_s - span_s < s <= at_s)
            assert used <= (limit if asked_under is self.limits else max(limit, before))


def both(first: int, second: int, *, upstream: int, burst_s: float | None = None) -> dict[str, ModelLimits]:
    """So many requests of A and B a minute, thirty tokens for each, and so many of all."""
    return {
        A: ModelLimits(
            requests_per_minute=first, tokens_per_minute=30 * first, burst_s=burst_s, by_estimate=True
        ),
        B: ModelLimits(requests_per_minute=second, input_tokens_per_minute=30 * second, by_estimate=True),
        UPSTREAM: ModelLimits(requests_per_minute=upstream, by_estimate=True),
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("first", "second"), [(TIGHT, WIDE), (WIDE, TIGHT)])
async def test_one_rises_and_one_falls(seed: int, first: int, second: int) -> None:
    """In either order, an upstream's limit with those of its models, and a burst that was none before."""
    run = _Run(seed, both(first, second, upstream=first + second))
    await run.go(60)
    run.change(both(second, first, upstream=first, burst_s=15))
    await run.go(60)
    await run.end()
    assert len(run.sent) == 120
    run.check(A, second, first, 60, lambda cost: 1)
    run.check(B, first, second, 60, lambda cost: 1)
    run.check(A, 30 * second, 30 * first, 60, lambda cost: cost.tokens)
    run.check(B, 30 * first, 30 * second, 60, lambda cost: cost.input_tokens)
    run.check(A, max(1, second // 4), first, 15, lambda cost: 1)
    run.check(A, 30 * second // 4, 30 * first, 15, lambda cost: cost.tokens)
    run.check(None, first, first + second, 60, lambda cost: 1)


async def test_another_burst_counts_what_was_sent_before() -> None:
    """The seconds before the reload are no second burst."""
    clock = ManualClock()

    async def sent(meters: Meters, count: int) -> int:
        late = clock.monotonic() + 0.001
        asked = [
            asyncio.create_task(
                meters.acquire(label=A, upstream="", cost=Cost(1), priority=5, deadline_at_s=late)
            )
            for _ in range(count)
        ]
        await turn()
        clock.advance(0.002)
        await turn()
        permits = [task.result()[0] for task in asked if task.exception() is None]
        for permit in permits:
            permit.sent(clock.monotonic())
        return len(permits)

    def limits(burst_s: float) -> dict[str, ModelLimits]:
        return {A: ModelLimits(requests_per_minute=60, burst_s=burst_s)}

    before = Meters(limits(10), clock=clock, network_delay_s=0.0)
    assert await sent(before, 20) == 10
    after = Meters(limits(5), clock=clock, network_delay_s=0.0, before=before)
    assert await sent(after, 20) == 0
    clock.advance(6)
    assert await sent(after, 20) == 5


async def test_who_waits_for_a_model_takes_no_place_of_its_upstream() -> None:
    """Nobody asks for another model in vain because many wait for this one."""
    clock = ManualClock()
    limits = {A: ModelLimits(requests_per_minute=1), UPSTREAM: ModelLimits(requests_per_minute=5)}
    meters = Meters(limits, clock=clock, network_delay_s=0.0)

    def ask(label: str) -> asyncio.Task[object]:
        work = meters.acquire(label=label, upstream=UPSTREAM, cost=Cost(), priority=5, deadline_at_s=None)
        return asyncio.create_task(work)

    waiting = [ask(A) for _ in range(10)]
    await turn()
    others = [ask(B) for _ in range(4)]
    await turn()
    assert [task.done() for task in others] == [True] * 4
    for task in waiting:
        task.cancel()
    await turn()
