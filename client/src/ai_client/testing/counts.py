"""What the simulated provider has seen: the side that tests trust."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

KEPT_ARRIVALS = 100_000


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as the provider saw it; `at_s` is on the simulator's clock."""

    at_s: float
    path: str
    model: str
    status: int
    priority: str | None
    tokens: int


@dataclass(slots=True)
class Counts:
    """What tests trust: kept by the provider's side alone."""

    arrivals: int = 0
    answered: int = 0
    disconnected: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    by_path: Counter[str] = field(default_factory=Counter)
    by_key: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    peak_in_flight: int = 0


def peak_per_minute(arrivals: Iterable[Arrival]) -> int:
    """The most of them within any 60 seconds."""
    peak, window = 0, deque[float]()
    for arrival in arrivals:
        window.append(arrival.at_s)
        while window[0] <= arrival.at_s - 60:
            window.popleft()
        peak = max(peak, len(window))
    return peak
