"""The engine's side of the protocol, as a pure state machine. `lease.lua` is the same, held to it by tests.

Invariants, in any order of any calls:
- what hosts hold, what is kept for those that may be cut off, and the pool together are the account's slots:
  `kept + pool = shares`; while what is kept for them is still with others, there is no pool and nothing is given;
- slots reach the pool only from a host that had them free, or whose lease has ended and aged;
- a cap is never raised past what all other hosts may use, and the shares of those that are silent.
Why no clock is asked: docs/adr/0030. Numbers are whole, divisions round down, so that both give the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum

from ai_client.coordination.protocol import UNKNOWN, Kind, QuotaAnswer, QuotaRequest

#: The water level in thousandths of a share: no host gets more than this times its share.
MOST_LEVEL = 1_000_000
#: Targets are computed anew after this part of the hosts has called.
SWEEPS = 16


class Presence(IntEnum):
    """What the books think of a host."""

    PRESENT = 0
    #: Silent, or not yet heard often enough to be sure: its share is kept for it.
    AWAY = 1
    #: Not heard since the books were lost: what it holds is not known.
    UNHEARD = 2


@dataclass(slots=True)
class Member:
    """One host in the books."""

    instance: str
    ticket: int
    number: int = 0
    #: Of its last call that was processed, and of its last one known to be answered.
    order: int = 0
    confirmed: int = 0
    held: int = 0
    cap: int = 0
    share: int = 0
    floor: int = 0
    demand: int = 0
    presence: Presence = Presence.AWAY

    @property
    def claim(self) -> int:
        """What it may newly use, as far as anybody else can know."""
        return self.cap if self.presence is Presence.PRESENT else max(self.cap, self.share)

    @property
    def kept(self) -> int:
        """Slots that it has, or may come to use by itself: until it is sure that an answer reached it, its share."""
        return self.held if self.presence is Presence.PRESENT else max(self.held, self.share)


@dataclass(slots=True)
class Books:
    """One account's books. `run` names the engine process that keeps them."""

    run: str = ""
    sweeps: float = SWEEPS
    epoch: str = ""
    order: int = 0
    #: Orders: who was not confirmed since is away; the last call that looked; who was not heard since may be away;
    #: what was answered before has aged (0: the books are new, and who holds what is not known).
    viewed: int = 0
    marked: int = 0
    soft: int = 0
    past: int = 0
    level: int = 0
    slack: int = 0
    hungry: bool = False
    swept: int = 0
    members: dict[str, Member] = field(default_factory=dict)

    def copy(self) -> Books:
        """As a replica or a dump has it."""
        return replace(self, members={name: replace(member) for name, member in self.members.items()})

    @property
    def shares(self) -> int:
        return sum(member.share for member in self.members.values())

    @property
    def kept(self) -> int:
        return sum(member.kept for member in self.members.values())

    @property
    def pool(self) -> int:
        """Slots that nobody has."""
        return max(0, self.shares - self.kept)

    @property
    def recovering(self) -> bool:
        """Whether who holds what is not known for sure: nothing new is given."""
        return self.past == 0

    def call(self, run: str, request: QuotaRequest) -> QuotaAnswer:
        """Processes one call, in the engine process `run`."""
        if self.run != run or (request.epoch == self.epoch and request.ack > self.order):
            self._begin_epoch(run, request)
        self.order += 1
        same = request.epoch == self.epoch
        member = self.members.get(request.host)
        if member is None or member.instance != request.instance:
            if not same or request.ticket <= (0 if member is None else member.ticket):
                return QuotaAnswer(Kind.HELLO, epoch=self.epoch, order=self.order)
            member = self._bind(member, request)
        elif request.number <= member.number:
            return QuotaAnswer(Kind.STALE)
        elif same and request.ack and request.ack == member.order:
            self._confirm(member, member.order)
        return self._process(member, request, same=same)

    def forget(self, host: str) -> bool:
        """Takes a host out that is gone for good. Whether it was there and silent for long enough."""
        member = self.members.get(host)
        if member is None or member.presence is Presence.PRESENT or member.order > self.past:
            return False
        del self.members[host]
        return True

    def _begin_epoch(self, run: str, request: QuotaRequest) -> None:
        """These books may lack what another engine process promised: all hosts are to say what they hold."""
        self.run = run
        self.epoch = f"{run}.{request.instance}.{request.number}"
        self.viewed = self.marked = self.soft = self.past = 0
        for member in self.members.values():
            member.presence = Presence.UNHEARD
            member.order = member.confirmed = 0
            member.held = 0
            member.cap = member.share

    def _bind(self, member: Member | None, request: QuotaRequest) -> Member:
        """A new process of a host takes over what the one before it held."""
        if member is None:
            member = self.members[request.host] = Member(request.instance, 0)
            member.presence = Presence.UNHEARD
            member.held = member.cap = request.share
            member.share = request.share
        member.instance = request.instance
        member.ticket = request.ticket
        member.number = 0
        if member.presence is not Presence.UNHEARD:
            self._confirm(member, request.ticket)
        else:
            member.confirmed = request.ticket
        return member

    def _confirm(self, member: Member, order: int) -> None:
        member.confirmed = order
        # A call that was long on its way is no word of a host that was found silent since.
        if member.presence is Presence.AWAY and order >= self.viewed:
            member.presence = Presence.PRESENT

    def _process(self, member: Member, request: QuotaRequest, *, same: bool) -> QuotaAnswer:
        member.number = request.number
        member.order = self.order
        before = self._report(member, request)
        viewed = same and self._look(member, request)
        if self.order - self.swept > len(self.members) // self.sweeps:
            self._sweep()
        target = self._grant(member, request, before=before, viewed=viewed)
        return QuotaAnswer(
            Kind.GRANTED,
            epoch=self.epoch,
            order=self.order,
            held=member.held,
            cap=member.cap,
            viewed=viewed,
            recovering=self.recovering,
            pool=self.pool,
            slots=self.shares,
            hosts=len(self.members),
            hungry=self.hungry,
            target=target,
        )

    def _report(self, member: Member, request: QuotaRequest) -> int:
        """Books what the host says it holds. The cap that it has had until now."""
        before = request.cap
        if request.held == UNKNOWN:
            before = request.floor if self.recovering else member.cap
            if self.recovering and member.presence is Presence.UNHEARD:
                member.held = request.floor
        elif member.presence is Presence.UNHEARD and self.recovering:
            member.held = request.held
        else:
            member.held = min(member.held, request.held)
        if member.presence is Presence.UNHEARD:
            member.presence = Presence.AWAY
        member.held = max(member.held, request.used)
        member.share = request.share
        member.floor = request.floor
        member.demand = request.demand
        return before

    def _look(self, caller: Member, request: QuotaRequest) -> bool:
        """Whether all that are silent are known to be, as far as the caller can tell."""
        self.soft = max(self.soft, request.soft)
        self.past = max(self.past, request.past)
        if not request.view:
            return False
        if not request.ripe:
            return self.marked > request.view
        self.marked = self.order
        if request.view > self.viewed:
            self.viewed = request.view
            for member in self.members.values():
                if (
                    member is not caller
                    and member.presence is Presence.PRESENT
                    and member.confirmed < self.viewed
                ):
                    member.presence = Presence.AWAY
        return True

    def _sweep(self) -> None:
        """Takes back what has aged, and finds the level up to which all are served alike."""
        self.swept = self.order
        for member in self.members.values():
            if member.order <= self.past:
                if member.presence is Presence.PRESENT:
                    member.presence = Presence.AWAY
                member.held = min(member.held, member.share)
                member.cap = min(member.cap, member.share)
        slots = self.shares
        low, high = 0, MOST_LEVEL
        while low < high:
            middle = (low + high + 1) // 2
            if self._total(middle) <= slots:
                low = middle
            else:
                high = middle - 1
        self.level = low
        self.hungry = low < MOST_LEVEL or any(
            self._fair(each, low) > each.held for each in self.members.values()
        )
        self.slack = max(0, slots - self._total(low)) * 1000 // max(1, slots)

    def _total(self, level: int) -> int:
        return sum(self._fair(member, level) for member in self.members.values())

    def _fair(self, member: Member, level: int) -> int:
        """Max-min fair over demands, weighted by shares; the silent have theirs."""
        if member.presence is not Presence.PRESENT or member.order <= self.soft:
            return member.share
        return max(member.floor, min(member.demand, member.share * level // 1000))

    def _grant(self, member: Member, request: QuotaRequest, *, before: int, viewed: bool) -> int:
        """Gives what there is, and says how much of it may be used. What it is to have."""
        want = self._fair(member, self.level) + member.share * self.slack // 1000
        if self.recovering:
            want = member.held
        elif want > member.held:
            free = self.shares - (self.kept - member.kept) - member.held
            member.held += max(0, min(want - member.held, free))
        cap = min(member.held, want)
        others = [other for other in self.members.values() if other is not member]
        if viewed:
            cap = min(cap, self.shares - sum(other.claim for other in others))
        elif request.lenient:
            cap = min(cap, before)
        else:
            cap = min(cap, self.shares - sum(max(other.cap, other.share) for other in others))
        if self.recovering:
            cap = min(cap, before)
        member.cap = max(cap, member.floor)
        member.held = max(member.held, member.cap)
        return want
