"""Which answers a cache file may hold, in memory: most look-ups are for what is not there, and need not ask the file.

A Bloom filter (Bloom 1970) over the row ids, which are parts of a hash already. It never misses what is there as far as
it has seen the file: `seen_place` says up to which place. Entries that are deleted stay in it until it is made anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ai_client.cache_file import CacheFile

# 2 MiB: of a million entries 1 in 80 that are not there is looked up all the same, of four million 1 in 7.
_BITS: Final = 24
_MASK: Final = (1 << _BITS) - 1
_MOST_ADDED: Final = 4_000_000
_ROWS_A_STEP: Final = 20_000


class Presence:
    """The filter. One thread adds, others may ask."""

    def __init__(self) -> None:
        self._bits = bytearray(1 << (_BITS - 3))
        self.added = 0

    def add(self, rows: Iterable[int]) -> None:
        """These are in the file now, or will be."""
        bits = self._bits
        for row in rows:
            first, second = row & _MASK, (row >> _BITS) & _MASK
            bits[first >> 3] |= 1 << (first & 7)
            bits[second >> 3] |= 1 << (second & 7)
            self.added += 1

    def may_have(self, row: int) -> bool:
        """False where it was never added."""
        first, second = row & _MASK, (row >> _BITS) & _MASK
        return bool(self._bits[first >> 3] >> (first & 7) & 1 and self._bits[second >> 3] >> (second & 7) & 1)


class PresenceKeeper:
    """Keeps the filter of one file true, in the writer's thread. `current` is None until it has seen the whole file."""

    def __init__(self) -> None:
        self.current: Presence | None = None
        self.seen_place = 0
        self._growing: Presence | None = Presence()
        #: Of `current`, when it was made: what counts is how much came since.
        self._added_at_first = 0
        self._mark: int | None = None
        self._next_row: int | None = None

    def grow(self, file: CacheFile) -> None:
        """Looks at more of what the file held before, a step at a time."""
        growing = self._growing
        if growing is None:
            if self.current is None or self.current.added - self._added_at_first < _MOST_ADDED:
                return
            growing = self._growing = Presence()
        if self._mark is None:
            self._mark = file.last_place()
        rows = file.rows_from(self._next_row, at_most=_ROWS_A_STEP)
        growing.add(rows)
        if len(rows) == _ROWS_A_STEP:
            self._next_row = rows[-1] + 1
            return
        self._added_at_first = growing.added
        self.current, self.seen_place = growing, self._mark
        self._growing = self._mark = self._next_row = None

    def will_write(self, rows: Iterable[int]) -> None:
        """Before they are committed, so that they are never absent here and present there."""
        for presence in (self.current, self._growing):
            if presence is not None:
                presence.add(rows)

    def wrote(self, file: CacheFile, *, last_place: int, count: int) -> None:
        """So many were placed, up to `last_place`. What lies between these and those before is somebody else's."""
        self._see(file, until=last_place - count, now_at=last_place)

    def catch_up(self, file: CacheFile) -> None:
        """Sees what others have written."""
        last_place = file.last_place()
        self._see(file, until=last_place, now_at=last_place)

    def _see(self, file: CacheFile, *, until: int, now_at: int) -> None:
        if self.current is None:
            return  # what came after `_mark` is seen when all before it is
        at = self.seen_place
        while at < until:
            rows, at = file.rows_placed_after(at, at_most=_ROWS_A_STEP)
            if not rows:
                break  # what was there has been deleted since
            self.will_write(rows)
        self.seen_place = now_at
