"""How far a batch is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from ai_client.batch.runner import Tally

BAR_CELLS = 24
TERMINAL_EVERY_S = 0.2
ELSEWHERE_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class Progress:
    """One look at a run. `done_share` goes by bytes of the input, as lines are counted only when read."""

    done_share: float
    sent: int
    rate_per_s: float
    cost_usd: float
    failed: int
    left_s: float | None


def progress(tally: Tally, *, position: int, size: int, began: int, elapsed_s: float) -> Progress:
    """From counts to a look; `began` is the position at which this run had caught up with the last."""
    share = position / size if size else 1.0
    speed = (position - began) / elapsed_s if elapsed_s > 0 else 0.0
    left_s = (size - position) / speed if speed > 0 else None
    rate = tally.sent / elapsed_s if elapsed_s > 0 else 0.0
    return Progress(share, tally.sent, rate, tally.cost_usd, tally.failed + tally.rejected, left_s)


def text(look: Progress) -> str:
    """`[####----]  42 %  120 sent, 12.0/s, $0.0123, 3 failed, 2m10s left`."""
    cells = round(look.done_share * BAR_CELLS)
    bar = "#" * cells + "-" * (BAR_CELLS - cells)
    left = "" if look.left_s is None else f", {duration(look.left_s)} left"
    return (
        f"[{bar}] {look.done_share:4.0%}  {look.sent} sent, {look.rate_per_s:.1f}/s, "
        f"${look.cost_usd:.4f}, {look.failed} failed{left}"
    )


def duration(seconds: float) -> str:
    """`45s`, `2m10s`, `3h05m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Display:
    """Shows looks on a stream, not too often."""

    def __init__(self, stream: TextIO | None = None, *, clock: Callable[[], float]) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._is_terminal = self._stream.isatty()
        self.every_s = TERMINAL_EVERY_S if self._is_terminal else ELSEWHERE_EVERY_S
        self._shown_s = clock()

    def show(self, look: Progress) -> None:
        """Show it, if it is time."""
        now_s = self._clock()
        if now_s - self._shown_s >= self.every_s:
            self._shown_s = now_s
            self._stream.write(f"\r{text(look)}\033[K" if self._is_terminal else text(look) + "\n")
            self._stream.flush()

    def end(self) -> None:
        """Leave the bar's line."""
        if self._is_terminal:
            self._stream.write("\r\033[K")
            self._stream.flush()
