"""A fleet, its engine and all that can befall them, in one seed: hosts that send whatever they may at once.

Real time is in milliseconds; nobody in the simulation can read it. Each host has clocks of its own: they drift and
jump.
"""

from __future__ import annotations

import heapq
import json
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ai_client.coordination.books import SWEEPS, Books
from ai_client.coordination.lease import Lease, Mode, Moment
from ai_client.coordination.protocol import QuotaAnswer, QuotaRequest, Terms
from tests.client.coordination.faults import FAULTS

WINDOW_MS = 60_000
#: The host's own window: 60 s, the longest network delay and the lag guard.
SPAN_MS = 60_150
NETWORK_MS = 100
TERMS = Terms()
QUIET_MS = 420_000
SWEEPS_OF_A_RUN = (SWEEPS, SWEEPS, 1, 0.2)
#: Between admission and write: a connection is made, or the process is stopped.
WRITE_MS = 300


@dataclass(slots=True)
class Engine:
    """One endpoint; behind it one process or another, with what it remembers."""

    books: Books = field(default_factory=Books)
    run: int = 1
    up: bool = True
    frozen: bool = False
    waiting: list[Callable[[], None]] = field(default_factory=list)
    dumps: deque[tuple[int, Books]] = field(default_factory=lambda: deque(maxlen=300))


@dataclass(slots=True)
class Host:
    """One host, its clocks and its window."""

    name: str
    share: int
    floor: int
    drift: float
    boot_offset_ms: int
    wall_offset_ms: int
    lease: Lease
    used: deque[int] = field(default_factory=deque)
    #: Admitted and not yet written.
    reserved: int = 0
    wants: int = 0
    link_up: bool = True
    stopped_until_ms: int = 0
    #: Until then nothing that it admits can be written: connections hang.
    writes_from_ms: int = 0
    #: A virtual machine that was paused: its clocks stood still.
    paused_ms: int = 0
    alive: bool = True
    gone: bool = False
    #: Its share is nobody else's: it is declared, or the books still know of it.
    counts: bool = True
    call: int = 0
    instance: int = 0
    process: int = 0
    mood_until_ms: int = 0

    @property
    def in_use(self) -> int:
        return len(self.used) + self.reserved

    def moment(self, real_ms: int) -> Moment:
        boot_ms = int((real_ms - self.paused_ms) * self.drift) + self.boot_offset_ms
        return Moment(boot_ms, int(real_ms * self.drift) + self.wall_offset_ms)


class World:
    """See the module. `check` raises AssertionError with the seed where a promise was broken."""

    def __init__(self, seed: int, *, faulty_ms: int = 600_000) -> None:
        self.seed = seed
        self.random = random.Random(seed)  # noqa: S311 - a simulation's
        self.now_ms = 0
        self.events: list[tuple[int, int, Callable[[], None]]] = []
        self.count = 0
        self.engine = Engine()
        self.hosts: list[Host] = []
        self.arrivals: list[int] = []
        self.rights: list[tuple[int, dict[str, int]]] = []
        self.log: list[str] = []
        self.faulty_ms = faulty_ms
        self.calls = 0
        rate = self.random
        # Few hosts whose targets are seldom computed are as many hosts, of which each knows little of the others.
        self.engine.books.sweeps = rate.choice(SWEEPS_OF_A_RUN)
        self.loss = rate.choice([0.0, 0.0, 0.02, 0.2])
        self.slow = rate.choice([0.0, 0.0, 0.05, 0.2])
        self.twice = rate.choice([0.0, 0.05])
        for _ in range(rate.randint(2, 6)):
            self.join(remembers=True)

    # time

    def at(self, delay_ms: float, what: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now_ms + int(delay_ms), self.count, what))

    def run(self) -> World:
        faults = FAULTS if self.random.random() < 0.9 else []
        if faults:
            self.at(self.random.randint(0, 60_000), self.trouble)
        end_ms = self.faulty_ms + QUIET_MS
        self.at(self.faulty_ms, self.calm)
        while self.events and self.events[0][0] <= end_ms:
            self.now_ms, _, what = heapq.heappop(self.events)
            what()
        self.now_ms = end_ms
        return self

    def say(self, text: str) -> None:
        self.log.append(f"{self.now_ms / 1000:9.3f} {text}")

    # hosts

    def join(self, *, remembers: bool) -> Host:
        rate = self.random
        share = rate.choice([2, 5, 10, 20])
        host = Host(
            name=f"host{len(self.hosts)}",
            share=share,
            floor=min(share, rate.choice([0, 1, 1, 2])),
            drift=1.0 + rate.uniform(-2e-4, 2e-4),
            boot_offset_ms=rate.randint(0, 10**8),
            wall_offset_ms=rate.randint(0, 10**12),
            lease=None,  # type: ignore[arg-type]
        )
        self.start(host, remembers=remembers)
        self.hosts.append(host)
        self.right()
        self.at(rate.randint(0, 3000), lambda: self.tick(host))
        self.at(rate.randint(0, 60_000), lambda: self.mood(host))
        return host

    def start(self, host: Host, *, remembers: bool) -> None:
        host.instance += 1
        self.replaced(host)
        host.lease = Lease(
            host.name,
            f"{host.name}.{host.instance}",
            share=host.share,
            floor=host.floor,
            now=host.moment(self.now_ms),
            remembers_share=remembers,
            terms=TERMS,
        )
        host.alive = True
        call = host.call
        self.at(self.random.randint(0, 500), lambda: self.ask(host, call))

    def replaced(self, host: Host) -> None:
        """Another process: what the one before had admitted it may have written."""
        host.process += 1
        host.call += 1
        host.used.extend([host.moment(self.now_ms).boot_ms] * host.reserved)
        host.reserved = 0

    def hand_over(self, host: Host) -> None:
        """To a process of a new release: it gets the lease with the window, and the one before sends nothing more."""
        told = json.loads(json.dumps(host.lease.as_json()))
        now = host.moment(self.now_ms)
        lease = Lease.inherit(told, host.name, share=host.share, floor=host.floor, now=now, terms=TERMS)
        assert lease is not None, self.story("a lease is not understood by the next process")
        self.replaced(host)
        host.lease, call = lease, host.call
        self.at(self.random.randint(0, 500), lambda: self.ask(host, call))

    def right(self) -> None:
        """Notes what the whole fleet may send from now on."""
        self.rights.append((self.now_ms, {host.name: host.share for host in self.hosts if host.counts}))

    def mood(self, host: Host) -> None:
        calm = self.now_ms >= self.faulty_ms
        if self.now_ms >= host.mood_until_ms:
            host.wants = self.random.choice([0, 1, 3, 1000]) if not calm else 1000
        self.at(self.random.randint(5_000, 120_000), lambda: self.mood(host))

    def runs(self, host: Host) -> bool:
        return host.alive and self.now_ms >= host.stopped_until_ms

    def tick(self, host: Host) -> None:
        """Sends at once all that it wants and may."""
        if host.gone:
            return
        self.at(self.random.choice([50, 300, 1000, 2000]), lambda: self.tick(host))
        if not self.runs(host):
            return
        now = host.moment(self.now_ms)
        limit = host.lease.limit(now)
        self.age(host, now)
        admitted = min(host.wants, limit - host.in_use)
        if admitted <= 0:
            return
        host.reserved += admitted
        process = host.process
        delay_ms = max(self.random.choice([0, 0, WRITE_MS]), host.writes_from_ms - self.now_ms)
        self.at(delay_ms, lambda: self.write(host, admitted, process))

    def write(self, host: Host, count: int, process: int) -> None:
        """What was admitted is written, where the lease still allows it."""
        if host.gone or not host.alive or process != host.process:
            return
        if not self.runs(host):
            again_ms = max(1, host.stopped_until_ms - self.now_ms)
            self.at(again_ms, lambda: self.write(host, count, process))
            return
        now = host.moment(self.now_ms)
        self.age(host, now)
        written = count if self.may_write(host, now) else 0
        host.reserved -= count
        for _ in range(written):
            host.used.append(now.boot_ms)
            self.arrivals.append(self.now_ms + self.random.randint(0, NETWORK_MS))

    def may_write(self, host: Host, now: Moment) -> bool:
        """As the window has it."""
        return host.lease.may_write(now, used=host.in_use)

    def age(self, host: Host, now: Moment) -> None:
        while host.used and host.used[0] + SPAN_MS <= now.boot_ms:
            host.used.popleft()

    # calls

    def ask(self, host: Host, call: int) -> None:
        if host.gone or call != host.call or not host.alive:
            return
        if not self.runs(host):
            self.at(max(1, host.stopped_until_ms - self.now_ms), lambda: self.ask(host, call))
            return
        now = host.moment(self.now_ms)
        self.age(host, now)
        demand = host.in_use + host.wants
        wait_ms = host.lease.due_in_ms(now, used=host.in_use, demand=demand)
        if wait_ms > 0:
            self.at(min(wait_ms, 1000), lambda: self.ask(host, call))
            return
        request = host.lease.begin(now, used=host.in_use, demand=demand)
        self.calls += 1
        run = self.engine.run
        self.at(TERMS.answer_ms + 500, lambda: self.give_up(host, call, request))
        if host.link_up and self.random.random() >= self.loss:
            self.at(self.delay_ms(), lambda: self.arrive(host, call, request, run))
            if self.random.random() < self.twice:
                self.at(self.delay_ms() * 20, lambda: self.arrive(host, call, request, run))

    def delay_ms(self) -> int:
        if self.random.random() < self.slow:
            return self.random.choice([500, 2000, 5000, 40_000, 150_000])
        return self.random.randint(0, 50)

    def arrive(self, host: Host, call: int, request: QuotaRequest, run: int) -> None:
        engine = self.engine
        if not engine.up or engine.run != run:
            return
        if engine.frozen:
            engine.waiting.append(lambda: self.arrive(host, call, request, run))
            return
        answer = engine.books.call(str(run), request)
        books = engine.books
        if not books.recovering:
            assert books.pool >= 0
        if not engine.dumps or self.now_ms - engine.dumps[-1][0] > 900:
            engine.dumps.append((self.now_ms, books.copy()))
        if host.link_up and self.random.random() >= self.loss:
            self.at(self.delay_ms(), lambda: self.answered(host, call, request, answer))

    def answered(self, host: Host, call: int, request: QuotaRequest, answer: QuotaAnswer) -> None:
        if host.gone or not host.alive or call != host.call or not host.link_up:
            return
        if not self.runs(host):
            again_ms = max(1, host.stopped_until_ms - self.now_ms)
            self.at(again_ms, lambda: self.answered(host, call, request, answer))
            return
        if host.lease.end(answer, host.moment(self.now_ms), number=request.number):
            self.ask(host, call)

    def give_up(self, host: Host, call: int, request: QuotaRequest) -> None:
        if host.gone or not host.alive or call != host.call:
            return
        if not self.runs(host):
            again_ms = max(1, host.stopped_until_ms - self.now_ms)
            self.at(again_ms, lambda: self.give_up(host, call, request))
        elif host.lease.failed(number=request.number):
            self.at(self.random.randint(100, 1500), lambda: self.ask(host, call))

    # trouble

    def trouble(self) -> None:
        if self.now_ms >= self.faulty_ms:
            return
        fault = self.random.choice(FAULTS)
        self.say(fault.__name__)
        fault(self)
        self.at(self.random.choice([500, 5_000, 30_000, 90_000, 200_000]), self.trouble)

    def some(self) -> Host:
        return self.random.choice([host for host in self.hosts if not host.gone])

    def span_ms(self) -> int:
        return self.random.choice([1_000, 10_000, 25_000, 60_000, 110_000, 180_000, 250_000])

    def cut(self, host: Host) -> None:
        host.link_up = False
        self.at(self.span_ms(), lambda: self.mend(host))

    def mend(self, host: Host) -> None:
        host.link_up = True

    def calm(self) -> None:
        """All faults end; what comes after must find its way back."""
        self.say("calm")
        self.loss = self.slow = self.twice = 0.0
        self.engine.up = True
        self.thaw()
        for host in self.hosts:
            host.link_up = True
            host.wants, host.mood_until_ms = 1000, 0
            host.stopped_until_ms = min(host.stopped_until_ms, self.now_ms)
            if not host.alive and not host.gone:
                self.start(host, remembers=False)

    def thaw(self) -> None:
        engine = self.engine
        engine.frozen = False
        waiting, engine.waiting = engine.waiting, []
        for arrive in waiting:
            arrive()

    def restart(self, books: Books, down_ms: int) -> None:
        self.engine.books = books
        self.engine.run += 1
        self.engine.up = False
        self.engine.frozen = False
        self.engine.waiting = []
        self.at(down_ms, self.engine_up)

    def fresh_books(self) -> Books:
        return Books(sweeps=self.engine.books.sweeps)

    def engine_up(self) -> None:
        self.engine.up = True

    # what must be true

    def check(self) -> None:
        self.check_bound()
        self.check_way_back()

    def check_bound(self) -> None:
        arrivals = sorted(self.arrivals)
        first = 0
        for index, at_ms in enumerate(arrivals):
            while arrivals[first] <= at_ms - WINDOW_MS:
                first += 1
            count, most = index - first + 1, self.most_at(at_ms)
            assert count <= most, self.story(f"{count} > {most} in the minute before {at_ms / 1000:.3f} s")

    def most_at(self, at_ms: int) -> int:
        """The most that each host was allowed at any time of the past minutes: a decrease takes a while to hold."""
        most: dict[str, int] = {}
        for index, (from_ms, shares) in enumerate(self.rights):
            ends_ms = self.rights[index + 1][0] if index + 1 < len(self.rights) else self.now_ms
            if from_ms <= at_ms and ends_ms >= at_ms - 300_000:
                most = {name: max(share, most.get(name, 0)) for name, share in {**most, **shares}.items()}
        return sum(most.values())

    def check_way_back(self) -> None:
        here = [host for host in self.hosts if not host.gone]
        right = sum(host.share for host in here)
        modes = {host.name: host.lease.mode(host.moment(self.now_ms)) for host in here}
        assert set(modes.values()) == {Mode.LEASED}, self.story(f"not all are back: {modes}")
        assert not self.engine.books.recovering, self.story("the books do not recover")
        caps = sum(host.lease.limit(host.moment(self.now_ms)) for host in here)
        assert caps >= 0.9 * right, self.story(f"only {caps} of {right} may be used in the end")

    def story(self, broken: str) -> str:
        return "\n".join([f"seed {self.seed}: {broken}", *self.log])
