"""Admission under random arrivals, cancellations, 429s and limit changes: what must hold, whatever comes."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ai_client.admission.lane import Lane, Permit
from ai_client.contract.options import QueueOptions, TenantOptions
from ai_client.errors import AIClientError
from tests.client.admission.scheduling import Rig, turn

TENANTS = {"a": 1.0, "b": 3.0, "c": 0.5}
OPTIONS = QueueOptions(
    tenants={name: TenantOptions(weight=weight) for name, weight in TENANTS.items()}, max_queued=60
)


@dataclass
class Asked:
    """One request of a run, and what became of it."""

    number: int
    tenant: str
    priority: int
    lane: Lane
    older: int
    task: asyncio.Task[Permit]
    permit: Permit | None = None


@dataclass
class World:
    """A scheduler, a server that counts arrivals, and dice."""

    seed: int
    limit_requests: int | None
    limit_tokens: int | None
    max_concurrent: int
    arrivals: list[tuple[float, Permit]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)  # noqa: S311 - a seeded run
        self.rig = Rig(self.limit_requests, self.limit_tokens, self.max_concurrent, OPTIONS)
        self.lanes = [self.rig.lane, self.rig.make_lane("n", limit=3)]

    def waiting(self) -> list[Asked]:
        return [each for each in self.asked if not each.task.done()]

    def arrive(self) -> None:
        tenant, priority = self.dice.choice(list(TENANTS)), self.dice.randrange(10)
        lane = self.dice.choice(self.lanes)
        tokens = self.dice.randrange(1, (self.limit_tokens or 400) // 4)
        deadline_s = self.dice.choice([None, None, 1.0, 20.0, 200.0])
        older = sum(each.tenant == tenant for each in self.waiting())
        name = str(len(self.asked))
        task = self.rig.start(
            name, tenant=tenant, priority=priority, lane=lane, tokens=tokens, deadline_s=deadline_s
        )
        task.add_done_callback(self._note(len(self.asked)))
        self.asked.append(Asked(len(self.asked), tenant, priority, lane, older, task))

    def _note(self, number: int) -> Callable[[asyncio.Task[Permit]], None]:
        def note(task: asyncio.Task[Permit]) -> None:
            if not task.cancelled() and task.exception() is None:
                self.asked[number].permit = task.result()

        return note

    def held(self) -> list[Asked]:
        return [each for each in self.asked if each.permit is not None and not each.permit.released]

    def write(self) -> None:
        """Some of those admitted are written; the server counts each up to 100 ms later."""
        for each in self.held():
            assert each.permit is not None
            if not each.permit.was_sent and self.dice.random() < 0.8:
                self.rig.scheduler.sent(each.permit)
                self.arrivals.append((self.rig.clock.monotonic() + self.dice.uniform(0, 0.1), each.permit))

    def answer(self) -> None:
        for each in self.held():
            assert each.permit is not None
            if self.dice.random() < 0.5:
                if each.permit.was_sent and self.dice.random() < 0.5:
                    self.rig.scheduler.settle(each.permit, self.dice.randrange(each.permit.tokens + 1))
                self.rig.scheduler.release(each.permit)

    def cancel(self) -> None:
        for each in self.waiting():
            if self.dice.random() < 0.2:
                each.task.cancel()

    def refuse(self) -> None:
        lane, now_s = self.dice.choice(self.lanes), self.rig.clock.monotonic()
        lane.throttle.refused(now_s, sent_at_s=now_s, retry_after_s=self.dice.choice([None, 0.0, 3.0]))
        self.rig.scheduler.lane_changed(lane)

    def check(self) -> None:
        held = self.held()
        assert self.rig.scheduler.in_flight == len(held) <= self.max_concurrent
        for lane in self.lanes:
            assert lane.in_flight == sum(each.lane is lane for each in held) <= lane.concurrency.limit
        assert self.rig.clock.pending <= 1

    async def finish(self) -> None:
        """Everybody is answered or cancelled; nothing may be left."""
        for each in self.waiting():
            each.task.cancel()
        await turn()
        for each in self.held():
            assert each.permit is not None
            self.rig.scheduler.sent(each.permit)
            self.rig.scheduler.release(each.permit)
        for each in self.asked:
            with suppress(asyncio.CancelledError, AIClientError):
                await each.task
        self.check()
        assert self.rig.scheduler.queued == 0
        self.rig.clock.advance(200.0)
        self.rig.window.fits(0, self.rig.clock.monotonic())
        assert (self.rig.window.used_requests, self.rig.window.used_tokens) == (0, 0)
        assert self.rig.clock.pending == 0


async def run(world: World, steps: int) -> None:
    actions = [world.arrive] * 6 + [world.write] * 4 + [world.answer] * 3 + [world.cancel, world.refuse]
    for _ in range(steps):
        for _ in range(world.dice.randrange(1, 4)):
            world.dice.choice(actions)()
            if world.dice.random() < 0.7:
                await turn()
        await turn()
        world.check()
        await world.rig.advance(world.dice.choice([0.0, 0.01, 0.2, 1.0, 7.0]))
        world.check()
    await world.finish()


def most_within_60_s(arrivals: list[tuple[float, Permit]], *, tokens: bool) -> int:
    """The fullest half-open minute that a server could count, with the tokens that each really used."""
    ordered = sorted((at_s, permit.tokens) for at_s, permit in arrivals)
    times = [at_s for at_s, _ in ordered]
    most = 0
    for index, (at_s, _) in enumerate(ordered):
        minute = ordered[index : bisect_left(times, at_s + 60.0)]
        most = max(most, sum(count for _, count in minute) if tokens else len(minute))
    return most


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    limit_requests=st.sampled_from([None, 1, 5, 20]),
    limit_tokens=st.sampled_from([None, 400, 2000]),
    max_concurrent=st.sampled_from([1, 4, 100]),
)
def test_limits_hold_and_nothing_leaks_whatever_comes(
    seed: int, limit_requests: int | None, limit_tokens: int | None, max_concurrent: int
) -> None:
    """No minute of arrivals is over the limits; every permit and token comes back; one timer at most."""
    world = World(seed, limit_requests, limit_tokens, max_concurrent)
    asyncio.run(run(world, 60))
    if limit_requests is not None:
        assert most_within_60_s(world.arrivals, tokens=False) <= limit_requests
    if limit_tokens is not None:
        assert most_within_60_s(world.arrivals, tokens=True) <= limit_tokens


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), max_concurrent=st.sampled_from([1, 3]))
def test_nobody_is_overtaken_within_one_priority_tenant_and_lane(seed: int, max_concurrent: int) -> None:
    """Those admitted were admitted in the order they asked."""
    world = World(seed, 20, None, max_concurrent)
    asyncio.run(run(world, 60))
    place = {id(permit): index for index, permit in enumerate(world.rig.window.admitted)}
    lines: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    for each in world.asked:
        if each.permit is not None:
            lines[(each.tenant, each.priority, id(each.lane))].append(place[id(each.permit)])
    for line in lines.values():
        assert line == sorted(line)


@settings(max_examples=40, deadline=None)
@given(
    priorities=st.lists(st.integers(0, 9), min_size=1, max_size=40),
    later=st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=400),
)
def test_the_bound_on_waiting_holds(priorities: list[int], later: list[list[int]]) -> None:
    """With n older ones of its tenant, a waiter is admitted within oldest_every * (n + 1) admissions."""

    async def check() -> None:
        rig = Rig(max_concurrent=1, options=QueueOptions(oldest_every=8))
        await rig.start("running")
        for index, priority in enumerate(priorities):
            rig.start(f"old-{index}", priority=priority)
        await turn()
        for index, arrivals in enumerate(later):
            for place, priority in enumerate(arrivals):
                rig.start(f"new-{index}-{place}", priority=priority)
            await turn(2)
            await rig.finish(rig.order[-1])
            if not rig.permits:
                break
        for index in range(len(priorities)):
            name = f"old-{index}"
            admitted = rig.order.index(name) if name in rig.order else len(rig.order)
            assert admitted <= 8 * (index + 1)
        rig.scheduler.close()

    async def main() -> None:
        await check()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


@settings(max_examples=30, deadline=None)
@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=2, max_size=5), seed=st.integers(0, 99)
)
def test_no_tenant_waits_longer_than_its_share_allows(weights: list[float], seed: int) -> None:
    """Between two admissions of a busy tenant of weight w, others of weights v get at most sum(v / w + 1)."""

    async def main() -> None:
        names = [f"t{index}" for index in range(len(weights))]
        shares = {name: TenantOptions(weight=weight) for name, weight in zip(names, weights, strict=True)}
        rig = Rig(max_concurrent=1, options=QueueOptions(tenants=shares))
        await rig.start("running")
        dice = random.Random(seed)  # noqa: S311 - a seeded run
        asked = [name for name in names for _ in range(60)]
        dice.shuffle(asked)
        tasks = [
            rig.start(f"{name}/{index}", tenant=name, priority=dice.randrange(10))
            for index, name in enumerate(asked)
        ]
        await turn()
        while rig.scheduler.queued:
            await rig.finish(rig.order[-1])
        served = [name.split("/")[0] for name in rig.order[1:]]
        for name, weight in zip(names, weights, strict=True):
            places = [index for index, each in enumerate(served) if each == name]
            bound = sum(v / weight + 1 for other, v in zip(names, weights, strict=True) if other != name)
            assert all(second - first - 1 <= bound for first, second in pairwise(places))
        await asyncio.gather(*tasks)

    asyncio.run(main())
