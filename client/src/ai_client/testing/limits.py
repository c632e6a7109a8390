"""The provider's own rate limits: what it counts in the last 60 seconds, and what it tells about that."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

WINDOW_S = 60.0


@dataclass(slots=True)
class Window:
    """Amounts admitted in the last 60 seconds. `limit` None admits all."""

    limit: int | None
    _entries: deque[tuple[float, int]] = field(default_factory=deque)
    _used: int = 0

    def used(self, now_s: float) -> int:
        """How much is in the window now."""
        while self._entries and self._entries[0][0] <= now_s - WINDOW_S:
            self._used -= self._entries.popleft()[1]
        return self._used

    def wait_s(self, amount: int, now_s: float) -> float:
        """Seconds until `amount` fits; 0 where it does now."""
        if self.limit is None:
            return 0.0
        excess = self.used(now_s) + amount - self.limit
        if excess <= 0:
            return 0.0
        for at_s, part in self._entries:
            excess -= part
            if excess <= 0:
                return max(0.0, at_s + WINDOW_S - now_s)
        return WINDOW_S

    def take(self, amount: int, now_s: float) -> None:
        """Count `amount` as admitted."""
        self._entries.append((now_s, amount))
        self._used += amount

    def headers(self, unit: str, now_s: float) -> list[tuple[str, str]]:
        """`x-ratelimit-limit-…`, `-remaining-…` and `-reset-…` as OpenAI writes them; none without a limit."""
        if self.limit is None:
            return []
        remaining = max(0, self.limit - self.used(now_s))
        reset_s = self._entries[-1][0] + WINDOW_S - now_s if self._entries else 0.0
        return [
            (f"x-ratelimit-limit-{unit}", str(self.limit)),
            (f"x-ratelimit-remaining-{unit}", str(remaining)),
            (f"x-ratelimit-reset-{unit}", duration(reset_s)),
        ]


def duration(seconds: float) -> str:
    """`6m0s`, `1.5s` or `20ms`, as OpenAI's reset headers are written."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:.3g}s" if minutes else f"{rest:.4g}s"
