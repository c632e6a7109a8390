"""What hosts and the books say to each other, and the times that both go by. All times are milliseconds.

A *slot* is the right to one request (or one token) in a span. A *share* is what a host may use without the engine; it
brings that many slots into the account when it joins. It *holds* slots, and may newly use no more than its *cap*.
An *order* numbers the calls of one account as they are processed: it stands in for a clock of the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

#: A host that says so does not know what it holds: a process that started after another one.
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Terms:
    """The times of the protocol. The defaults give 100 requests a call to a host that sends 400 a minute."""

    #: Between two calls of a host with nothing to tell.
    call_ms: int = 16_000
    #: An answer that takes longer counts as lost.
    answer_ms: int = 3_000
    #: The window's span with the longest network delay, our own lag, and a drift of the clocks of 0.5 %.
    span_ms: int = 61_000
    #: For how long a new process stays with its first call as its evidence.
    fresh_ms: int = 5_000
    #: Between the calls of such a process; of one that wants more; of one that has some to give back.
    unripe_ms: int = 4_000
    want_ms: int = 2_000
    return_ms: int = 3_000

    @property
    def lease_ms(self) -> int:
        """From before a call was sent: for so long its answer holds."""
        return self.call_ms + 2 * self.answer_ms

    @property
    def soft_ms(self) -> int:
        """Who was silent for longer is likely gone: others are asked to leave room for its share."""
        return self.call_ms + 2 * self.answer_ms

    @property
    def notice_ms(self) -> int:
        """Who was silent for longer is treated as gone: nobody's cap counts on its share any more."""
        return 3 * (self.call_ms + self.answer_ms)

    @property
    def silent_ms(self) -> int:
        """T: this long after a host's last contact no lease counts on its share (docs/adr/0030)."""
        return 2 * self.lease_ms + self.notice_ms + 3 * self.answer_ms + self.fresh_ms

    @property
    def static_ms(self) -> int:
        """From then on, after its last contact, a host that is cut off uses its own share."""
        return self.silent_ms + self.span_ms

    @property
    def takeback_ms(self) -> int:
        """After a host's last call all that it held has aged, whatever became of it."""
        return self.lease_ms + self.span_ms + self.answer_ms


@dataclass(frozen=True, slots=True)
class QuotaRequest:
    """One call of a host for one account."""

    host: str
    #: Tells one process of a host from the next.
    instance: str
    #: Order of the call that let this instance in; 0 before.
    ticket: int
    #: Counts this instance's calls.
    number: int
    #: The books that the orders below belong to.
    epoch: str
    #: Order of the last call whose answer came.
    ack: int
    #: Order of an answered call that was sent at most `notice_ms` ago, the oldest there is; 0: none.
    view: int
    #: Whether `view` is old enough to tell who is silent.
    ripe: bool
    #: Order of the newest answered call that was sent at least `soft_ms` ago; 0: none.
    soft: int
    #: Order of the newest call whose answer came at least `takeback_ms` ago; 0: none.
    past: int
    #: Whether the last grant that was checked against the silent is younger than a lease.
    lenient: bool
    #: Slots it holds, with those given back by this call taken off; or UNKNOWN.
    held: int
    #: What it may newly use at the moment.
    cap: int
    #: Slots that are used or reserved for requests not yet sent.
    used: int
    #: What it may use by itself, and what of that is never lent.
    share: int
    floor: int
    #: Slots that it could use in the next span.
    demand: int


class Kind(StrEnum):
    """What an answer is."""

    GRANTED = "granted"
    #: The books don't know this instance: call again with this order as the ticket.
    HELLO = "hello"
    #: An older call than one that was processed.
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class QuotaAnswer:
    """What the books say to a call."""

    kind: Kind
    epoch: str = ""
    order: int = 0
    held: int = 0
    cap: int = 0
    #: Whether the cap was checked against hosts that are silent.
    viewed: bool = False
    #: Whether the books are still finding out who holds what.
    recovering: bool = False
    #: Slots that nobody holds, of how many there are, and of how many hosts.
    pool: int = 0
    slots: int = 0
    hosts: int = 0
    #: Whether somebody wants more than it has.
    hungry: bool = False
    #: Slots that it is to have of those that there are, when all others gave back what they don't need.
    target: int = 0
