"""Who is next: the order of the admission queue. Pure, without clock or I/O.

Between tenants: start-time fair queueing (Goyal et al. 1996). Each tenant has a tag that grows by cost / weight
with every admission; the smallest tag is next; a tenant that comes back starts no earlier than the present.
Within a tenant: the most urgent priority first, in order of arrival, but every `oldest_every`-th admission
goes to its oldest waiter.

Bound on waiting (proof in docs/adr/0010): a waiter with n older ones of its tenant is admitted within
oldest_every * (n + 1) admissions of its tenant that are made while its lane is open, and between two admissions
of a tenant of weight w, others of weights v get at most sum(v / w + 1) of equal cost.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict

from ai_client.admission.lane import Lane, Permit
from ai_client.contract.options import QueueOptions, TenantOptions
from ai_client.errors import AIClientError

# Tenants that are idle are forgotten beyond this many: names may come from anywhere.
_MOST_TENANTS = 1024


class Waiter:
    """One request that waits. `number` is its place in the order of arrival."""

    __slots__ = (
        "answer",
        "deadline_at_s",
        "enqueued_at_s",
        "lane",
        "number",
        "patience_s",
        "priority",
        "tenant",
        "tokens",
        "waiting",
    )

    answer: asyncio.Future[Permit | AIClientError]

    def __init__(self, lane: Lane, tenant: Tenant, priority: int, tokens: int) -> None:
        self.lane = lane
        self.tenant = tenant
        self.priority = priority
        self.tokens = tokens
        self.number = 0
        self.enqueued_at_s = 0.0
        self.deadline_at_s: float | None = None
        #: How long it waits for an upstream that asks to be left alone.
        self.patience_s = math.inf
        self.waiting = False


class _LaneQueue:
    """Those of one tenant who wait for one lane: a queue for each priority."""

    __slots__ = ("by_priority", "lane", "mask")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.by_priority: tuple[OrderedDict[int, Waiter], ...] = tuple(OrderedDict() for _ in range(10))
        #: Bit p is set where priority p has waiters.
        self.mask = 0

    def add(self, waiter: Waiter) -> None:
        self.by_priority[waiter.priority][waiter.number] = waiter
        self.mask |= 1 << waiter.priority

    def remove(self, waiter: Waiter) -> None:
        queue = self.by_priority[waiter.priority]
        del queue[waiter.number]
        if not queue:
            self.mask &= ~(1 << waiter.priority)

    def most_urgent(self) -> Waiter:
        priority = (self.mask & -self.mask).bit_length() - 1
        return next(iter(self.by_priority[priority].values()))

    def oldest(self) -> Waiter:
        heads = (next(iter(queue.values())) for queue in self.by_priority if queue)
        return min(heads, key=lambda waiter: waiter.number)

    def newest_of_least_urgent(self) -> Waiter:
        return next(reversed(self.by_priority[self.mask.bit_length() - 1].values()))


class Tenant:
    """A local tenant: its weight, its place in virtual time, and who waits."""

    __slots__ = ("lanes", "name", "oldest_open", "passed_over", "queued", "tag", "weight")

    def __init__(self, name: str, weight: float) -> None:
        self.name = name
        self.weight = weight
        self.tag = 0.0
        self.queued = 0
        #: Admissions in a row that went past the oldest waiter.
        self.passed_over = 0
        #: The oldest waiter whose lane was open when `choose` last looked.
        self.oldest_open: Waiter | None = None
        self.lanes: dict[Lane, _LaneQueue] = {}


class Backlog:
    """All who wait. Invariant: queued = sum of the tenants' = sum of the queues' lengths."""

    def __init__(self, options: QueueOptions) -> None:
        self._options = options
        self._tenants: dict[str, Tenant] = {}
        self._waiting: dict[Tenant, None] = {}
        self._virtual_time = 0.0
        self._count = 0
        self.queued = 0

    def tenant(self, name: str) -> Tenant:
        found = self._tenants.get(name)
        if found is None:
            if len(self._tenants) >= _MOST_TENANTS:
                self._tenants = {
                    n: t for n, t in self._tenants.items() if t.queued or t.tag > self._virtual_time
                }
            found = self._tenants[name] = Tenant(name, self._weight(name))
        return found

    def _weight(self, name: str) -> float:
        named = self._options.tenants.get(name)
        share = named if named is not None else TenantOptions(weight=self._options.default_weight)
        return max(1e-6, share.weight)

    def reconfigure(self, options: QueueOptions) -> None:
        self._options = options
        for tenant in self._tenants.values():
            tenant.weight = self._weight(tenant.name)

    def add(self, waiter: Waiter) -> None:
        tenant = waiter.tenant
        self._count += 1
        waiter.number = self._count
        waiter.waiting = True
        queue = tenant.lanes.get(waiter.lane)
        if queue is None:
            queue = tenant.lanes[waiter.lane] = _LaneQueue(waiter.lane)
        queue.add(waiter)
        if not tenant.queued:
            tenant.tag = max(tenant.tag, self._virtual_time)
            self._waiting[tenant] = None
        tenant.queued += 1
        self.queued += 1

    def take(self, waiter: Waiter) -> None:
        """Out of the queue, whatever becomes of it."""
        tenant = waiter.tenant
        waiter.waiting = False
        queue = tenant.lanes[waiter.lane]
        queue.remove(waiter)
        if not queue.mask:
            del tenant.lanes[waiter.lane]
        tenant.queued -= 1
        self.queued -= 1
        if not tenant.queued:
            del self._waiting[tenant]
            tenant.passed_over = 0
            tenant.oldest_open = None

    def choose(self, now_s: float) -> Waiter | None:
        """Who is next among those whose lane is open; None where none is. Changes nothing: `charge` does."""
        best: Tenant | None = None
        for tenant in self._waiting:
            if (best is None or tenant.tag < best.tag) and any(lane.is_open(now_s) for lane in tenant.lanes):
                best = tenant
        if best is None:
            return None
        open_queues = [queue for lane, queue in best.lanes.items() if lane.is_open(now_s)]
        oldest = min((queue.oldest() for queue in open_queues), key=lambda waiter: waiter.number)
        best.oldest_open = oldest
        if best.passed_over >= self._options.oldest_every - 1:
            return oldest
        return min(
            (queue.most_urgent() for queue in open_queues),
            key=lambda waiter: (waiter.priority, waiter.number),
        )

    def admitted(self, waiter: Waiter) -> None:
        """`waiter`, as `choose` told it, goes out of the queue with a permit."""
        tenant = waiter.tenant
        tenant.passed_over = 0 if waiter is tenant.oldest_open else tenant.passed_over + 1
        self.take(waiter)

    def charge(self, tenant: Tenant, cost: float) -> None:
        """One admission of `tenant`, at `cost`."""
        start = max(self._virtual_time, tenant.tag)
        self._virtual_time = start
        tenant.tag = start + cost / tenant.weight

    def next_opening_s(self, now_s: float) -> float:
        """When the first lane that somebody waits for may open by time alone."""
        times_s = [
            lane.throttle.not_before_s
            for tenant in self._waiting
            for lane in tenant.lanes
            if lane.throttle.not_before_s > now_s
        ]
        return min(times_s, default=math.inf)

    def surely_ahead(self, waiter: Waiter) -> int:
        """How many are admitted before a newcomer, whatever else comes: those in its own queue."""
        queue = waiter.tenant.lanes.get(waiter.lane)
        return 0 if queue is None else len(queue.by_priority[waiter.priority])

    def least_deserving(self, newcomer: Waiter) -> Waiter | None:
        """Who should make room in a full queue; None where that is the newcomer itself.

        The tenant that holds most of the queue for its weight gives way, with its newest of the least urgent.
        """
        own = newcomer.tenant
        largest, largest_share = own, (own.queued + 1) / own.weight
        for tenant in self._waiting:
            if tenant.queued / tenant.weight > largest_share:
                largest, largest_share = tenant, tenant.queued / tenant.weight
        if not largest.queued:
            return None
        victim = max(
            (queue.newest_of_least_urgent() for queue in largest.lanes.values()),
            key=lambda waiter: (waiter.priority, waiter.number),
        )
        if largest is own and victim.priority <= newcomer.priority:
            return None
        return victim

    def all(self) -> list[Waiter]:
        return [
            waiter
            for tenant in self._waiting
            for lane_queue in tenant.lanes.values()
            for queue in lane_queue.by_priority
            for waiter in queue.values()
        ]
