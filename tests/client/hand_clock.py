"""A wall clock that tests move by hand."""

from __future__ import annotations


class HandClock:
    """Stands still at `now_s`, in seconds since 1970, until a test sets that."""

    def __init__(self, now_s: float = 1_800_000_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s
