"""What goes to one model with one key, and the leave to send one request of it."""

from __future__ import annotations

from typing import Protocol

from ai_client.admission.throttle import Throttle
from ai_client.admission.window import WindowEntry


class ConcurrencyLimit(Protocol):
    """What a lane needs of `concurrency.AdaptiveConcurrency`."""

    limit: int


class Lane:
    """What goes to one model with one key."""

    __slots__ = ("concurrency", "in_flight", "key_fingerprint", "model", "throttle")

    def __init__(
        self, model: str, key_fingerprint: str, *, throttle: Throttle, concurrency: ConcurrencyLimit
    ) -> None:
        self.model = model
        self.key_fingerprint = key_fingerprint
        self.throttle = throttle
        self.concurrency = concurrency
        self.in_flight = 0

    def is_open(self, now_s: float) -> bool:
        return self.throttle.not_before_s <= now_s and self.in_flight < self.concurrency.limit


class Permit(WindowEntry):
    """Leave to send one request. Give it back with `Scheduler.release`, whatever happens."""

    __slots__ = ("admitted_at_s", "lane", "released")

    def __init__(self, lane: Lane, tokens: int, admitted_at_s: float) -> None:
        super().__init__(tokens)
        self.lane = lane
        self.admitted_at_s = admitted_at_s
        self.released = False
