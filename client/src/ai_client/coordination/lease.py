"""The host's side of the protocol, as a pure state machine: what it may use now, and what it asks next.

Two clocks of the host's own are read together: one that goes on while the machine is suspended, and the wall clock,
which tells of a virtual machine that was paused. An age that must not be too small is the larger of both, so that a
clock that jumps can end a lease early and never makes it longer. Milliseconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from ai_client.coordination.protocol import UNKNOWN, Kind, QuotaAnswer, QuotaRequest, Terms


@dataclass(frozen=True, slots=True)
class Moment:
    """Both clocks of a host at one time."""

    boot_ms: int
    wall_ms: int


def _at_most_ms(since: Moment, now: Moment) -> int:
    """No more time than this has passed, unless all of the machine's clocks stood still."""
    return max(now.boot_ms - since.boot_ms, now.wall_ms - since.wall_ms)


def _at_least_ms(since: Moment, now: Moment) -> int:
    return now.boot_ms - since.boot_ms


def _told(moment: Moment | None) -> list[int] | None:
    return None if moment is None else [moment.boot_ms, moment.wall_ms]


def _heard(told: Any) -> Moment | None:
    return None if told is None else Moment(int(told[0]), int(told[1]))


class Mode(StrEnum):
    """Where a host's limit comes from."""

    LEASED = "leased"
    #: The lease has ended and nobody was asked since: nothing may be sent.
    EXPIRED = "expired"
    #: Cut off, not long enough for others to have given back its share.
    FLOOR = "floor"
    #: Cut off: its own share.
    STATIC = "static"


@dataclass(frozen=True, slots=True)
class _Answered:
    order: int
    sent: Moment
    received: Moment


class Lease:
    """What one host may use of one account.

    `remembers_share`: the host used its share by itself until now (it was never coordinated), so it goes on with that;
    otherwise another process may have held anything, and it waits for the books.
    """

    def __init__(
        self,
        host: str,
        instance: str,
        *,
        share: int,
        floor: int,
        now: Moment,
        remembers_share: bool,
        terms: Terms,
    ) -> None:
        self.host = host
        self.instance = instance
        self.share = share
        self.floor = min(floor, share)
        #: The least that its share was since the books last heard of it: what it may use by itself.
        self._sure_share = share
        self.terms = terms
        self.held = share if remembers_share else UNKNOWN
        self.answer: QuotaAnswer | None = None
        self._contact: Moment | None = None if remembers_share else now
        self._leased_from: Moment | None = None
        self._cap = 0
        #: After so long it asks for more; twice as long each time that it gets none and is owed none.
        self._want_ms = terms.want_ms
        self._told_demand = 0
        #: Whether it ended since all that is in use fitted into it: what was admitted before may be lent to others.
        self.has_lapsed = False
        self._asked = remembers_share
        self._ticket = 0
        self._number = 0
        self._epoch = ""
        self._answered: deque[_Answered] = deque()
        self._viewed: Moment | None = None
        self._pending: tuple[QuotaRequest, Moment] | None = None
        self._pending_leased = False
        self._granted_in = ""
        #: How often the books took this process for a new one of its host, though it was in them: another has its name.
        self.displaced = 0

    def as_json(self) -> dict[str, Any]:
        """For the next process of this host, which goes on with it: this one must use none of it any more."""
        return {
            "instance": self.instance,
            "ticket": self._ticket,
            "number": self._number,
            "epoch": self._epoch,
            "held": self.held,
            "cap": self._cap,
            "sure_share": self._sure_share,
            "asked": self._asked,
            "want_ms": self._want_ms,
            "has_lapsed": self.has_lapsed,
            "contact": _told(self._contact),
            "leased_from": _told(self._leased_from),
            "viewed": _told(self._viewed),
            "answered": [[each.order, _told(each.sent), _told(each.received)] for each in self._answered],
            "answer": None if self.answer is None else asdict(self.answer),
        }

    @classmethod
    def inherit(
        cls, told: object, host: str, *, share: int, floor: int, now: Moment, terms: Terms
    ) -> Lease | None:
        """The lease that the process before handed over; None where it is not understood."""
        if not isinstance(told, dict):
            return None
        try:
            lease = cls(
                host,
                str(told["instance"]),
                share=share,
                floor=floor,
                now=now,
                remembers_share=False,
                terms=terms,
            )
            lease._ticket, lease._number = int(told["ticket"]), int(told["number"])
            lease._epoch, lease.held, lease._cap = str(told["epoch"]), int(told["held"]), int(told["cap"])
            lease._sure_share = min(int(told["sure_share"]), share)
            lease._asked, lease._want_ms = bool(told["asked"]), int(told["want_ms"])
            lease.has_lapsed = bool(told["has_lapsed"])
            lease._contact, lease._leased_from = _heard(told["contact"]), _heard(told["leased_from"])
            lease._viewed = _heard(told["viewed"])
            for order, sent, received in told["answered"]:
                lease._answered.append(_Answered(int(order), Moment(*sent), Moment(*received)))
            answer = told["answer"]
            lease.answer = None if answer is None else QuotaAnswer(**{**answer, "kind": Kind(answer["kind"])})
        except (KeyError, TypeError, ValueError):
            return None
        return lease

    def mode(self, now: Moment) -> Mode:
        """Where the limit comes from, now."""
        if self._is_leased(now):
            return Mode.LEASED
        if not self._asked:
            return Mode.EXPIRED
        if self._contact is None or _at_least_ms(self._contact, now) >= self.terms.static_ms:
            return Mode.STATIC
        return Mode.FLOOR

    def limit(self, now: Moment) -> int:
        """What may be in use at most, for one more to be used."""
        mode = self.mode(now)
        if mode is Mode.LEASED:
            return self._cap
        if mode is Mode.EXPIRED:
            return 0
        return self._sure_share if mode is Mode.STATIC else min(self.floor, self._sure_share)

    def may_write(self, now: Moment, *, used: int) -> bool:
        """Whether what was admitted may still be written: under an unbroken lease, or where the limit has room for all.

        A lease that came after another had ended knows nothing of what was admitted under that.
        """
        return used <= self.limit(now) or (not self.has_lapsed and self._is_leased(now))

    def reshare(self, *, share: int, floor: int) -> None:
        """Another share, from now on. One that grew counts when the books know of it."""
        self.share = share
        self.floor = min(floor, share)
        self._sure_share = min(self._sure_share, share)

    def lapse(self) -> None:
        """What was granted is another process's: the books are asked before anything is used."""
        self._leased_from, self._asked, self._pending = None, False, None
        self.has_lapsed = True
        self.held = UNKNOWN

    def ends_in_ms(self, now: Moment) -> int:
        """Until the lease ends; 0 where there is none."""
        if self._leased_from is None:
            return 0
        return max(0, self.terms.lease_ms - _at_most_ms(self._leased_from, now))

    def begin(self, now: Moment, *, used: int, demand: int) -> QuotaRequest:
        """The next call. It gives back what is held above the cap and not in use; where others are short of it, what it
        could not use either."""
        mode = self.mode(now)
        self.has_lapsed = mode is not Mode.LEASED or (self.has_lapsed and used > self._cap)
        if mode is Mode.LEASED and self.answer is not None and self.answer.hungry:
            self._cap = self._needed(used=used, demand=demand)
        cap = self.limit(now)
        if mode is Mode.STATIC:
            self.held = max(self._sure_share, used)
        elif self.held != UNKNOWN:
            self.held = max(min(self.held, self._cap if mode is Mode.LEASED else self.held), used)
        self._number += 1
        self._told_demand = demand
        view, ripe = self._view(now)
        request = QuotaRequest(
            host=self.host,
            instance=self.instance,
            ticket=self._ticket,
            number=self._number,
            epoch=self._epoch,
            ack=self._answered[-1].order if self._answered else 0,
            view=view,
            ripe=ripe,
            soft=self._newest(now, self.terms.soft_ms),
            past=self._newest(now, self.terms.takeback_ms),
            lenient=self._viewed is not None and _at_most_ms(self._viewed, now) <= self.terms.lease_ms,
            held=self.held,
            cap=cap,
            used=used,
            share=self.share,
            floor=self.floor,
            demand=demand,
        )
        self._pending = (request, now)
        self._pending_leased = mode is Mode.LEASED
        return request

    def _needed(self, *, used: int, demand: int) -> int:
        """What of its cap it could use in the next span. What was used counts against it, and never raises it."""
        return min(self._cap, max(demand, used, self.floor))

    def failed(self, *, number: int) -> bool:
        """No answer to that call came, or it came too late. Whether the call was still waited for."""
        if self._pending is None or self._pending[0].number != number:
            return False
        if not self._pending_leased:
            self._asked = True
        self._pending = None
        return True

    def end(self, answer: QuotaAnswer, now: Moment, *, number: int) -> bool:
        """The answer to that call. Whether it counts: it was waited for, and came in time."""
        if self._pending is None or self._pending[0].number != number:
            return False
        request, sent = self._pending
        if _at_most_ms(sent, now) > self.terms.answer_ms or answer.kind is Kind.STALE:
            return False
        self._pending = None
        if answer.kind is Kind.GRANTED or self._contact is not None:
            # A host that was never in the books goes on with its share until they know of it.
            self._contact = sent
        if answer.kind is Kind.HELLO:
            self.displaced += answer.epoch == self._granted_in
        else:
            self._granted_in = answer.epoch
        if answer.epoch != self._epoch:
            self._epoch = answer.epoch
            self._answered.clear()
        self._answered.append(_Answered(answer.order, sent, now))
        self._forget_old(now)
        if answer.kind is Kind.HELLO:
            self._ticket = answer.order
            return True
        gains = answer.cap > self._cap or 20 * (answer.target - answer.cap) > answer.target
        self._want_ms = self.terms.want_ms if gains else min(2 * self._want_ms, self.terms.call_ms)
        self.answer = answer
        self.held = answer.held
        self._cap = answer.cap
        self._leased_from = sent
        self._asked = False
        self._sure_share = request.share
        if answer.viewed:
            self._viewed = sent
        return True

    def due_in_ms(self, now: Moment, *, used: int, demand: int) -> int:
        """When to call next, at the latest. Callers add what a failed call makes them wait."""
        terms, answer = self.terms, self.answer
        if not self._answered or answer is None or not self._is_leased(now):
            return 0
        since_ms = _at_most_ms(self._answered[-1].sent, now)
        wait_ms = terms.call_ms
        if not self._view(now)[1]:
            wait_ms = terms.unripe_ms
        if demand > self._cap and not answer.recovering:
            grew = 4 * demand > 5 * self._told_demand
            wait_ms = min(wait_ms, terms.want_ms if grew else self._want_ms)
        elif answer.hungry and 20 * (self.held - max(used, min(self._cap, demand))) > self.held:
            wait_ms = min(wait_ms, terms.return_ms)
        return max(0, wait_ms - since_ms)

    def _is_leased(self, now: Moment) -> bool:
        since = self._leased_from
        return since is not None and _at_most_ms(since, now) < self.terms.lease_ms

    def _view(self, now: Moment) -> tuple[int, bool]:
        """The oldest answered call at most `notice_ms` old, and whether it is old enough to judge others by."""
        for each in self._answered:
            age_ms = _at_most_ms(each.sent, now)
            if age_ms <= self.terms.notice_ms:
                if age_ms > self.terms.notice_ms - self.terms.call_ms - self.terms.answer_ms:
                    return each.order, True
                if age_ms <= self.terms.fresh_ms:
                    return each.order, False
        return 0, False

    def _newest(self, now: Moment, least_ms: int) -> int:
        """Order of the newest call whose answer came at least so long ago."""
        for each in reversed(self._answered):
            if _at_least_ms(each.received, now) >= least_ms:
                return each.order
        return 0

    def _forget_old(self, now: Moment) -> None:
        """Of those that are old enough for everything one is enough."""
        while len(self._answered) > 1 and (
            _at_least_ms(self._answered[1].received, now) >= self.terms.takeback_ms
        ):
            self._answered.popleft()
