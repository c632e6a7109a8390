"""Hosts that share budgets, their engine and all that can befall them, in one seed; real time is in milliseconds.

What is taken for granted (docs/adr/0033): where the books are lost whole, one host that was granted something calls
within the founding wait; and a host loses its ledger, or leaves for good, in no run in which the books are lost.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ai_client.configure.shared_budgets import Borrower
from ai_client.coordination.budget_books import BudgetBooks
from ai_client.coordination.budget_protocol import BudgetAnswer, BudgetRequest, BudgetTerms
from ai_client.ledger.allowance import BudgetKey, OnFile
from ai_client.ledger.budgets import Budget, Span
from ai_client.ledger.lending import Lending
from tests.client.coordination.budget_faults import FAULTS, TAME_FAULTS
from tests.client.coordination.budget_host import File, Host

#: Two minutes before a month ends, in UTC.
MIDNIGHT_S = 1_796_083_200.0
TERMS = BudgetTerms()
QUIET_MS = 240_000
SETTLING_MS = 120_000
DAY = len("2026-11-30")


@dataclass(slots=True)
class Engine:
    """One endpoint; behind it one process or another, with what it remembers."""

    books: BudgetBooks = field(default_factory=BudgetBooks)
    run: int = 1
    is_up: bool = True
    dumps: deque[tuple[int, BudgetBooks]] = field(default_factory=lambda: deque(maxlen=300))


@dataclass(slots=True)
class Call:
    """One call of one process, in the engine process that it was sent to."""

    host: Host
    process: int
    borrower: Borrower
    request: BudgetRequest
    run: int
    has_ended: bool = False


class World:
    """See the module. `check` raises AssertionError with the seed where a promise was broken."""

    def __init__(self, seed: int, *, faulty_ms: int = 420_000) -> None:
        self.seed = seed
        self.random = rate = random.Random(seed)  # noqa: S311 - a simulation's
        self.now_ms = 0
        self.events: list[tuple[int, int, Callable[[], None]]] = []
        self.count = 0
        self.engine = Engine()
        self.hosts: list[Host] = []
        self.billed: Counter[BudgetKey] = Counter()
        self.most: dict[tuple[str, int], int] = {}
        self.log: list[str] = []
        self.faulty_ms = faulty_ms
        self.calls = 0
        self.sure_until_ms = 0
        self.sure_host: Host | None = None
        self.start_s = MIDNIGHT_S - rate.choice([100, 300, 5_000, 40_000])
        self.loss = rate.choice([0.0, 0.0, 0.02, 0.2])
        self.slow = rate.choice([0.0, 0.0, 0.05, 0.2])
        self.twice = rate.choice([0.0, 0.05, 0.3])
        self.is_tame = rate.random() < 0.3
        # Few kinds of trouble in a run meet each other more often.
        faults = TAME_FAULTS if self.is_tame else FAULTS
        self.faults = rate.sample(faults, rate.randint(2, len(faults)))
        shapes = [("*", DAY), ("*", len("2026-11")), ("web", DAY)]
        self.limits = {
            shape: rate.choice([3_000, 20_000, 100_000]) for shape in rate.sample(shapes, rate.randint(1, 3))
        }
        for _ in range(rate.randint(2, 6)):
            self.join()

    # time

    def at(self, delay_ms: float, what: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now_ms + max(0, int(delay_ms)), self.count, what))

    def run(self) -> World:
        self.at(self.random.randint(0, 60_000), self.trouble)
        self.at(self.faulty_ms, self.calm)
        end_ms = self.faulty_ms + QUIET_MS
        while self.events and self.events[0][0] <= end_ms:
            self.now_ms, _, what = heapq.heappop(self.events)
            what()
        self.now_ms = end_ms
        return self

    def say(self, text: str) -> None:
        self.log.append(f"{self.now_ms / 1000:9.3f} {text}")

    def wall_s(self, host: Host) -> float:
        return self.start_s + self.now_ms / 1000 + host.wall_offset_s

    # hosts

    def join(self) -> Host:
        rate = self.random
        host = Host(
            name=f"host{len(self.hosts)}",
            file=File(f"file{len(self.hosts)}"),
            limits=dict(self.limits),
            borrower=None,  # type: ignore[arg-type]
            drift=1.0 + rate.uniform(-2e-4, 2e-4),
            boot_offset_ms=rate.randint(0, 10**8),
            wall_offset_s=rate.choice([0.0, 0.3, -2.0, 20.0]),
        )
        self.hosts.append(host)
        self.begin(host)
        self.at(rate.randint(0, 3_000), lambda: self.tick(host))
        self.at(0, lambda: self.mood(host))
        return host

    def begin(self, host: Host) -> None:
        """A process begins."""
        for shape, limit in host.limits.items():
            self.most[shape] = max(limit, self.most.get(shape, 0))
        budgets = [
            Budget(scope, Span.DAY if length == DAY else Span.MONTH, limit)
            for (scope, length), limit in host.limits.items()
        ]
        instance = f"{host.name}.{host.process}"
        host.borrower = Borrower(host.name, Lending(budgets), instance=instance, terms=TERMS)
        process = host.process
        self.at(self.random.randint(0, 500), lambda: self.ask(host, process))

    def mood(self, host: Host) -> None:
        if self.now_ms < self.faulty_ms:
            host.wants = self.random.choice([0, 1, 10, 100])
        self.at(self.random.randint(5_000, 90_000), lambda: self.mood(host))

    def tick(self, host: Host) -> None:
        """One request: what it may cost is set aside before it is sent, and settled when it ends."""
        if host.is_gone:
            return
        self.at(self.random.choice([100, 500, 2_000]), lambda: self.tick(host))
        if not host.is_alive or not host.wants or self.now_ms < host.stopped_until_ms:
            return
        asked = self.random.randint(1, host.wants)
        scopes = {"*", self.random.choice(["web", "other"])}
        keys = [
            key for key in host.borrower.lending.keys(self.wall_s(host)) if self.is_of_now(host, key, scopes)
        ]
        short = [key for key in keys if not host.file.fits(key, asked, host.limits[key[0], len(key[1])])]
        for key in short:
            host.refused[key] = max(asked, host.refused.get(key, 0))
        if not short:
            self.send(host, keys, asked)

    def is_of_now(self, host: Host, key: BudgetKey, scopes: set[str]) -> bool:
        day = host.borrower.lending.today(self.wall_s(host))
        return key[0] in scopes and day.startswith(key[1])

    def send(self, host: Host, keys: list[BudgetKey], asked: int) -> None:
        cost, process, file = self.random.randint(0, asked), host.process, host.file
        for key in keys:
            file.row(key).held += asked
            self.billed[key] += cost

        def settle() -> None:
            # What a dead process held is booked whole.
            booked = asked if process in host.killed else cost
            for key in keys:
                file.row(key).held -= asked
                file.row(key).spent += booked

        self.at(self.random.choice([50, 1_000, 20_000]), settle)

    # calls, step by step: a kill may come between any two

    def goes_on(self, host: Host, process: int) -> bool:
        return not host.is_gone and process not in host.killed

    def ask(self, host: Host, process: int) -> None:
        if not self.goes_on(host, process) or process != host.process:
            return
        borrower, now_ms = host.borrower, host.boot_ms(self.now_ms)
        wait_ms = borrower.due_in_ms(now_ms, is_refusing=bool(host.refused))
        wait_ms = max(wait_ms, host.stopped_until_ms - self.now_ms)
        if wait_ms > 0:
            self.at(min(wait_ms, 500), lambda: self.ask(host, process))
            return
        wall_s = self.wall_s(host)
        found = self.look(host, wall_s)
        refused, host.refused = host.refused, {}
        keep = borrower.plan(found, refused, now_ms=now_ms, wall_s=wall_s)
        self.at(self.disk_ms(), lambda: self.give_back(host, process, borrower, keep))

    def look(self, host: Host, wall_s: float) -> OnFile:
        lending = host.borrower.lending
        return host.file.look(list(lending.keys(wall_s)), since=lending.since(wall_s))

    def give_back(self, host: Host, process: int, borrower: Borrower, keep: dict[BudgetKey, int]) -> None:
        if not self.goes_on(host, process):
            return
        if keep:
            host.file.give_back(keep)
        found = self.look(host, self.wall_s(host))
        request = borrower.request(found, now_ms=host.boot_ms(self.now_ms))
        self.calls += 1
        call = Call(host, process, borrower, request, self.engine.run)
        self.at(3_500, lambda: self.give_up(call))
        for _ in range(2 if self.random.random() < self.twice else 1):
            if self.passes(host):
                self.at(self.delay_ms(host), lambda: self.arrive(call))

    def arrive(self, call: Call) -> None:
        engine = self.engine
        if not engine.is_up or engine.run != call.run:
            return
        answer = engine.books.call(str(call.run), call.request)
        if not engine.dumps or self.now_ms - engine.dumps[-1][0] > 900:
            engine.dumps.append((self.now_ms, engine.books.copy()))
        if self.passes(call.host):
            self.at(self.delay_ms(call.host), lambda: self.answered(call, answer))

    def answered(self, call: Call, answer: BudgetAnswer) -> None:
        """The first answer to a call counts, where it comes in time."""
        host, process = call.host, call.process
        if not self.goes_on(host, process) or call.has_ended:
            return
        call.has_ended = True
        grants, done = call.borrower.answered(answer, now_ms=host.boot_ms(self.now_ms))

        def take() -> None:
            if not self.goes_on(host, process):
                return
            host.file.take(grants, ledger=call.request.ledger, roster=done.roster, is_settled=done.is_settled)
            assert call.borrower.seat is not None
            call.borrower.seat.written(done)
            self.ask(host, process)

        self.at(self.disk_ms(), take)

    def give_up(self, call: Call) -> None:
        if self.goes_on(call.host, call.process) and not call.has_ended:
            call.has_ended = True
            call.borrower.failed(call.host.boot_ms(self.now_ms))
            self.ask(call.host, call.process)

    def disk_ms(self) -> int:
        return self.random.choice([0, 5, 5, 400])

    def is_sure(self, host: Host) -> bool:
        return host is self.sure_host and self.now_ms < self.sure_until_ms

    def passes(self, host: Host) -> bool:
        return self.is_sure(host) or (host.link_up and self.random.random() >= self.loss)

    def delay_ms(self, host: Host) -> int:
        if self.random.random() < self.slow and not self.is_sure(host):
            return self.random.choice([500, 2_000, 5_000, 40_000, 150_000])
        return self.random.randint(0, 50)

    # trouble

    def trouble(self) -> None:
        if self.now_ms >= self.faulty_ms:
            return
        fault = self.random.choice(self.faults)
        self.say(fault.__name__)
        fault(self)
        self.at(self.random.choice([500, 5_000, 20_000, 60_000]), self.trouble)

    def some(self) -> Host:
        return self.random.choice([host for host in self.hosts if not host.is_gone])

    def kill(self, host: Host) -> None:
        if self.is_sure(host) or not host.is_alive:
            return
        host.killed.add(host.process)
        host.file.crashed()

        def again() -> None:
            if not host.is_gone and not host.is_alive:
                host.process += 1
                self.begin(host)

        self.at(self.random.choice([100, 2_000, 60_000]), again)

    def restart(self, books: BudgetBooks) -> None:
        """Another process of the engine. Books without a settled host are as good as none."""
        engine = self.engine
        engine.books, engine.is_up = books, False
        engine.run += 1
        if not any(fellow.is_settled for fellow in books.fellows.values()):
            settled = [host for host in self.hosts if host.file.is_settled]
            self.sure_host = settled[0] if settled else None
            self.sure_until_ms = self.now_ms + 90_000
            if self.sure_host is not None:
                self.sure_host.stopped_until_ms = 0
                if not self.sure_host.is_alive:
                    self.sure_host.process += 1
                    self.begin(self.sure_host)
        down_ms = self.random.choice([100, 3_000, 20_000])
        self.at(down_ms, lambda: setattr(engine, "is_up", True))

    def calm(self) -> None:
        """All faults end, and all spend what they may; what comes after must find its way back."""
        self.say("calm")
        self.loss = self.slow = self.twice = 0.0
        self.engine.is_up = True
        for host in self.hosts:
            host.link_up, host.wants, host.stopped_until_ms = True, 100, 0
            if not host.is_alive and not host.is_gone:
                host.process += 1
                self.begin(host)
        # Whoever is forgotten may be named again by one that had not heard of it.
        for delay_ms in (20_000, 60_000):
            self.at(delay_ms, self.forget)

    def forget(self) -> None:
        for host in self.hosts:
            if host.is_gone:
                self.engine.books.forget(host.name)

    # what must be true

    def check(self) -> None:
        for (scope, period), billed in self.billed.items():
            most = self.most[scope, len(period)]
            assert billed <= most, self.story(f"{billed} of {most} spent of {scope} in {period}")
        books = self.engine.books
        assert not books.is_recovering, self.story("the books do not recover")
        for host in self.hosts:
            if not host.is_gone:
                assert books.fellows[host.name].is_settled, self.story(f"{host.name} is granted nothing")
                self.check_use(host)

    def check_use(self, host: Host) -> None:
        """Nobody is refused for what lies idle elsewhere, or is nobody's."""
        keys = [key for key in host.borrower.plans if self.is_of_now(host, key, {"*", "web"})]
        if all(host.file.fits(key, host.wants, 10**9) for key in keys):
            return
        here = [each for each in self.hosts if not each.is_gone]
        lefts = {key: self.left(key, here) for key in keys}
        mosts = {
            key: max(4 * host.wants * len(here), self.engine.books.budgets[key].limit // 4) for key in keys
        }
        assert any(lefts[key] <= mosts[key] for key in keys), self.story(f"{host.name} can't use of {lefts}")

    def left(self, key: BudgetKey, here: list[Host]) -> int:
        """What is not used, wherever it is."""
        book = self.engine.books.budgets[key]
        idle = (
            max(0, row.granted - row.returned - row.used) for row in (each.file.row(key) for each in here)
        )
        return max(0, book.limit - book.out) + sum(idle)

    def story(self, broken: str) -> str:
        return "\n".join([f"seed {self.seed}: {broken}", *self.log])
