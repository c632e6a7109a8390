"""How much of a quota is used: hosts with callers, without any trouble, in time that is counted and not waited for."""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ai_client.coordination.books import Books
from ai_client.coordination.lease import Lease, Moment
from ai_client.coordination.protocol import Terms
from ai_client.coordination.window import floor_of
from tests.client.coordination.simulation import SPAN_MS, WINDOW_MS

#: How often a service compares its demand with its lease.
LOOK_MS = 500
#: A caller who is not served in this time asks no more.
PATIENCE_MS = 5_000
_TIMEOUTS_MS = 100


@dataclass(slots=True)
class Caller:
    """A host and those that wait on it."""

    lease: Lease
    used: deque[int] = field(default_factory=deque)
    queue: deque[int] = field(default_factory=deque)
    calls: int = 0

    def serve(self, now_ms: int) -> int:
        """How many go out now."""
        while self.used and self.used[0] + SPAN_MS <= now_ms:
            self.used.popleft()
        while self.queue and self.queue[0] + PATIENCE_MS < now_ms:
            self.queue.popleft()
        served = max(0, min(len(self.queue), self.lease.limit(_moment(now_ms)) - len(self.used)))
        for _ in range(served):
            self.queue.popleft()
            self.used.append(now_ms)
        return served

    def look(self, now_ms: int, books: Books) -> None:
        """Calls where that is due, and demands what services do."""
        now, used = _moment(now_ms), len(self.used)
        demand = used + used // 10 + len(self.queue) + 1
        if self.lease.due_in_ms(now, used=used, demand=demand) <= 0:
            request = self.lease.begin(now, used=used, demand=demand)
            self.calls += 1
            self.lease.end(books.call("run", request), now, number=request.number)


class Demand:
    """Callers who ask for `load` times the quota together, by `weights` of the hosts, which may be changed."""

    def __init__(self, *, hosts: int, share: int, load: float = 1.5, seed: int = 1) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a simulation's
        self.now_ms = 0
        self.rpm = hosts * share
        self.weights = [1.0] * hosts
        self.arrivals: list[int] = []
        self.books = Books()
        self._next_ms = 0.0
        self._between_ms = WINDOW_MS / (load * self.rpm)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        floor, now = floor_of(share), _moment(0)
        self.hosts = [
            Caller(
                Lease(f"h{at}", "i", share=share, floor=floor, now=now, remembers_share=True, terms=Terms())
            )
            for at in range(hosts)
        ]
        for host in self.hosts:
            self._every(LOOK_MS, lambda host=host: host.look(self.now_ms, self.books), host)  # type: ignore[misc]
            self._every(_TIMEOUTS_MS, lambda: None, host)
        self._ask()

    @property
    def calls(self) -> int:
        return sum(host.calls for host in self.hosts)

    def run(self, seconds: int) -> int:
        """Goes on for so long. When that began, in milliseconds."""
        began_ms = self.now_ms
        while self._events[0][0] < began_ms + 1000 * seconds:
            at_ms, _, act = heapq.heappop(self._events)
            self.now_ms = int(at_ms)
            act()
        self.now_ms = began_ms + 1000 * seconds
        return began_ms

    def used(self, *, from_ms: int) -> float:
        """The part of the quota that was used since then."""
        sent = len(self.arrivals) - bisect_left(self.arrivals, from_ms)
        return sent * WINDOW_MS / (self.rpm * (self.now_ms - from_ms))

    def move(self, *, busy: int, least: float = 0.05) -> None:
        """To other hosts, as many as are said; the others keep `least` of what a busy one has."""
        chosen = set(self.random.sample(range(len(self.hosts)), busy))
        self.weights = [1.0 if at in chosen else least for at in range(len(self.hosts))]

    def _at(self, at_ms: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (at_ms, self._count, act))

    def _every(self, period_ms: int, act: Callable[[], None], host: Caller) -> None:
        def again() -> None:
            act()
            self._serve(host)
            self._at(self.now_ms + period_ms, again)

        self._at(self.now_ms + self.random.uniform(0, period_ms), again)

    def _ask(self) -> None:
        (host,) = self.random.choices(self.hosts, self.weights)
        host.queue.append(self.now_ms)
        self._serve(host)
        self._next_ms += self.random.expovariate(1) * self._between_ms
        self._at(self._next_ms, self._ask)

    def _serve(self, host: Caller) -> None:
        self.arrivals += [self.now_ms] * host.serve(self.now_ms)


def fullest(arrivals: Sequence[int]) -> int:
    """The most arrivals in any minute."""
    return max(at + 1 - bisect_left(arrivals, arrivals[at] - WINDOW_MS + 1) for at in range(len(arrivals)))


def _moment(now_ms: int) -> Moment:
    return Moment(now_ms, now_ms)
