"""Limits of single models: each holds in any of its spans, and nobody waits for another's."""

from __future__ import annotations

import asyncio
import random

import pytest

from ai_client.admission.meters import Cost, Meter, MeterPermit, Meters
from ai_client.contract.limits import ModelLimits
from ai_client.errors import DeadlineExceeded
from ai_client.platform.clock import ManualClock
from tests.client.admission.scheduling import turn

Sent = tuple[float, Cost]


async def run(limits: ModelLimits, *, seed: int, count: int, span_s: float) -> list[Sent]:
    """Random requests at random moments, each sent when it may be, some late, some given back."""
    source, clock = random.Random(seed), ManualClock()  # noqa: S311 - no secret
    meter = Meter("m", limits, clock=clock, network_delay_s=0.0)
    sent: list[Sent] = []
    held: list[tuple[MeterPermit, Cost]] = []

    async def one(cost: Cost, priority: int) -> None:
        held.append((await meter.acquire(cost, priority=priority, deadline_at_s=None), cost))

    tasks = []
    while len(tasks) < count or held or not all(task.done() for task in tasks):
        if len(tasks) < count:
            cost = Cost(source.randint(1, 30), source.randint(0, 10), source.randint(0, 2))
            tasks.append(asyncio.create_task(one(cost, source.randint(0, 9))))
        await turn()
        while held and source.random() < 0.7:
            permit, cost = held.pop(source.randrange(len(held)))
            if source.random() < 0.2:
                permit.ended()
            else:
                permit.sent(clock.monotonic())
                sent.append((clock.monotonic(), cost))
        clock.advance(source.expovariate(count / span_s))
    return sent


def most(sent: list[Sent], span_s: float, amount_of: object) -> int:
    """The fullest `span_s` of what was sent."""
    assert callable(amount_of)
    return max(
        sum(amount_of(cost) for at_s, cost in sent if begin_s <= at_s < begin_s + span_s)
        for begin_s, _ in sent
    )


@pytest.mark.parametrize("seed", range(4))
async def test_every_limit_holds_in_any_of_its_spans(seed: int) -> None:
    """Requests, tokens together and apart, pictures, bursts and days, whatever is asked for and given back."""
    limits = ModelLimits(
        requests_per_minute=60,
        tokens_per_minute=1_200,
        input_tokens_per_minute=1_000,
        output_tokens_per_minute=300,
        images_per_minute=50,
        requests_per_day=250,
        burst_s=10,
        by_estimate=True,
    )
    sent = await run(limits, seed=seed, count=150, span_s=90.0)
    assert len(sent) > 100
    assert most(sent, 60, lambda cost: 1) <= 60
    assert most(sent, 60, lambda cost: cost.tokens) <= 1_200
    assert most(sent, 60, lambda cost: cost.input_tokens) <= 1_000
    assert most(sent, 60, lambda cost: cost.output_tokens) <= 300
    assert most(sent, 60, lambda cost: cost.images) <= 50
    assert most(sent, 10, lambda cost: 1) <= 10
    assert most(sent, 10, lambda cost: cost.tokens) <= 200
    assert most(sent, 86_400, lambda cost: 1) <= 250


async def test_what_was_not_used_is_free_at_once_unless_the_provider_counts_estimates() -> None:
    """`by_estimate` keeps what was set aside."""
    for by_estimate, goes in ((False, True), (True, False)):
        limits = ModelLimits(tokens_per_minute=100, by_estimate=by_estimate)
        clock = ManualClock()
        meter = Meter("m", limits, clock=clock, network_delay_s=0.0)
        first = await meter.acquire(Cost(10, 90), priority=5, deadline_at_s=None)
        first.sent(clock.monotonic())
        second = asyncio.create_task(meter.acquire(Cost(10, 40), priority=5, deadline_at_s=None))
        await turn()
        first.settle(Cost(10, 20))
        await turn()
        assert second.done() is goes
        second.cancel()
        await turn()


async def test_the_urgent_go_first_and_a_deadline_ends_the_wait() -> None:
    """In order within a priority; who leaves, leaves nothing behind."""
    clock = ManualClock()
    meter = Meter("m", ModelLimits(requests_per_minute=1), clock=clock, network_delay_s=0.0)
    (await meter.acquire(Cost(), priority=5, deadline_at_s=None)).sent(clock.monotonic())
    order: list[str] = []

    async def one(name: str, priority: int) -> None:
        (await meter.acquire(Cost(), priority=priority, deadline_at_s=None)).sent(clock.monotonic())
        order.append(name)

    tasks = [asyncio.create_task(one(*each)) for each in (("late", 9), ("a", 1), ("b", 1))]
    hurried = asyncio.create_task(meter.acquire(Cost(), priority=0, deadline_at_s=clock.monotonic() + 5))
    await turn()
    clock.advance(6)
    await turn()
    with pytest.raises(DeadlineExceeded):
        await hurried
    for _ in range(3):
        clock.advance(61)
        await turn()
    assert order == ["a", "b", "late"]
    assert all(task.done() for task in tasks)
    assert clock.pending == 0


async def test_one_models_queue_is_not_anothers_and_an_upstreams_counts_all_of_its() -> None:
    """By label, and by the upstream's name for all of its models together."""
    clock = ManualClock()
    limits = {"gpt": ModelLimits(requests_per_minute=1), "router": ModelLimits(requests_per_minute=1)}
    meters = Meters(limits, clock=clock, network_delay_s=0.0)

    async def asked(label: str, upstream: str = "") -> bool:
        work = meters.acquire(label=label, upstream=upstream, cost=Cost(), priority=5, deadline_at_s=None)
        task = asyncio.create_task(work)
        await turn()
        is_done = task.done()
        task.cancel()
        await turn()
        return is_done

    assert await asked("gpt")
    assert not await asked("gpt")
    assert await asked("claude")
    assert await asked("router/a", "router")
    assert not await asked("router/b", "router")


async def test_a_successor_goes_on_counting() -> None:
    """By its snapshot in another process, and as it is where a reload leaves the limit as it was."""
    clock = ManualClock()
    limits = {"gpt": ModelLimits(requests_per_minute=1, tokens_per_day=100)}
    before = Meters(limits, clock=clock, network_delay_s=0.0)
    [permit] = await before.acquire(label="gpt", upstream="", cost=Cost(1, 1), priority=5, deadline_at_s=None)
    permit.sent(clock.monotonic())
    heir = Meters(limits, clock=clock, network_delay_s=0.0)
    heir.restore(before.snapshot())
    for meters in (heir, Meters(limits, clock=clock, network_delay_s=0.0, before=before)):
        late = clock.monotonic() + 1
        work = meters.acquire(label="gpt", upstream="", cost=Cost(1, 1), priority=5, deadline_at_s=late)
        task = asyncio.create_task(work)
        await turn()
        clock.advance(2)
        with pytest.raises(DeadlineExceeded):
            await task
    heir.restore({"gpt": "nonsense", "other": [1]})
