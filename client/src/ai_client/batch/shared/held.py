"""A chunk that this host holds, and which of its lines may be begun: a pure state machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ai_client.batch.lines import BadLine, RequestLine
from ai_client.batch.shared.sealing import BatchSeal
from ai_client.coordination.batch_protocol import BatchTerms, Chunk, Hold

Line = RequestLine | BadLine


@dataclass(slots=True)
class HeldChunk:
    """Lines are begun for half of the idle time from before the call that last renewed it: never after another host
    may have begun them. Times are milliseconds of a clock that goes on while the host is suspended.
    """

    chunk: Chunk
    seal: BatchSeal
    todo: deque[Line]
    terms: BatchTerms
    asked_at_ms: int
    in_flight: int = 0
    hold: Hold = Hold.HELD
    #: Lines that are left for another host, or for later.
    is_given_up: bool = False

    @classmethod
    def of(
        cls, chunk: Chunk, seal: BatchSeal, lines: Iterable[Line], *, terms: BatchTerms, asked_at_ms: int
    ) -> HeldChunk:
        """Held by a call that was sent at `asked_at_ms`."""
        return cls(chunk, seal, deque(lines), terms, asked_at_ms)

    def may_begin(self, now_ms: int) -> bool:
        """Whether a line of it may be begun now."""
        is_fresh = now_ms < self.asked_at_ms + self.terms.hold_ms
        return bool(self.todo) and self.hold is Hold.HELD and not self.is_given_up and is_fresh

    def begin(self, now_ms: int) -> Line | None:
        """A line to send, or None."""
        if not self.may_begin(now_ms):
            return None
        self.in_flight += 1
        return self.todo.popleft()

    def ended(self) -> None:
        """A line that was begun has ended: its result is kept, or it is not to be sent now."""
        self.in_flight -= 1

    def give_up(self) -> None:
        """Begin no more of it."""
        self.is_given_up = True

    def is_due(self, now_ms: int) -> bool:
        """Whether to ask for it anew."""
        return self.hold is Hold.HELD and now_ms >= self.asked_at_ms + self.terms.renew_ms

    def renewed(self, hold: Hold, *, asked_at_ms: int) -> None:
        """The answer to a call that was sent at `asked_at_ms`."""
        if self.hold is Hold.HELD:
            self.hold = hold
        if hold is Hold.HELD:
            self.asked_at_ms = max(self.asked_at_ms, asked_at_ms)

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is begun any more, and nothing is under way."""
        begins_none = not self.todo or self.is_given_up or self.hold is not Hold.HELD
        return self.in_flight == 0 and begins_none
