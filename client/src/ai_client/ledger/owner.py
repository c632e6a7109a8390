"""Who holds entries of the ledger: a lock that dies with its process, and notes that outlive it.

A process that uses the ledger is an owner. It holds a lock on one byte of `ledger.owners`, which the kernel frees when
the process ends, however it ends: nothing can be mistaken for it later, as a process id could. Its flight notes are a
file of small records, one for each entry in flight, written with `pwrite`: what was written is there after a kill
-9, and a record costs a microsecond where a transaction costs twenty.
"""

import fcntl
import os
import struct
import time
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

FILE_MODE: Final = 0o600
SLOTS: Final = 4_096
_RECORD: Final = struct.Struct("<qqqqqq")
# struct flock on 64-bit Linux: type, whence, start, length, pid (must be 0 for open file description locks).
_FLOCK: Final = struct.Struct("hhqqi4x")
# The clocks are read one after the other, and steered a little; a restart takes longer.
_BOOT_TOLERANCE_S: Final = 2.0


class Fate(IntEnum):
    """What is known of an entry. The numbers are written to files: never change them."""

    #: Not written any more: what is reserved counts as sent.
    RESERVED = 0
    SETTLED = 1
    RELEASED = 2
    BILLED_UNKNOWN = 3
    SENT = 4


class Note(NamedTuple):
    """The last thing that an owner wrote down about an entry."""

    entry: int
    fate: Fate
    cost_nusd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0


def booted_at_s() -> float:
    """When this machine started, by its wall clock: what was not synced before may be lost.

    Not `/proc/sys/kernel/random/boot_id`: a unit with `ProcSubset=pid` does not see it, and a container has
    another one after its own restart, which loses nothing.
    """
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def is_same_boot(booted_at_s: float, other_booted_at_s: float) -> bool:
    """Whether two such moments are of one start. A clock that was set in between makes them two: the safe side."""
    return abs(booted_at_s - other_booted_at_s) < _BOOT_TOLERANCE_S


def open_locks(ledger: Path) -> int:
    """A descriptor of the file on whose bytes owners hold their locks."""
    path = ledger.with_suffix(".owners")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)


def lock_owner(locks: int, owner: int) -> None:
    """Takes the owner's byte. Raises BlockingIOError where another process has it."""
    fcntl.fcntl(locks, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, owner, 1, 0))


def is_alive(locks: int, owner: int) -> bool:
    """Whether anybody holds the owner's byte through another descriptor than `locks`."""
    answer = fcntl.fcntl(locks, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, owner, 1, 0))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def notes_path(ledger: Path, owner: int) -> Path:
    """Where an owner writes its flight notes."""
    return ledger.with_name(f"{ledger.stem}-{owner}.flight")


class FlightNotes:
    """The notes of this process. A slot holds one entry at a time; there are `SLOTS` of them."""

    def __init__(self, path: Path) -> None:
        """Raises OSError. The file gets all its blocks now, so that a full disk can't stop a note later."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, FILE_MODE)
        try:
            os.posix_fallocate(self._descriptor, 0, SLOTS * _RECORD.size)
        except OSError:
            os.close(self._descriptor)
            raise
        self._path = path
        self._free = list(range(SLOTS - 1, -1, -1))

    def take_slot(self) -> int | None:
        """A free slot, or None where there are more entries in flight than slots."""
        return self._free.pop() if self._free else None

    def give_slot(self, slot: int) -> None:
        """The entry's row says everything now: the slot may hold another one."""
        self._free.append(slot)

    def write(self, slot: int, note: Note) -> None:
        """One write of less than a page: after a kill it is there whole, or not at all."""
        os.pwrite(self._descriptor, _RECORD.pack(*note), slot * _RECORD.size)

    def close(self, *, keep: bool) -> None:
        """Closes the file, and deletes it unless entries are still in flight."""
        os.close(self._descriptor)
        if not keep:
            self._path.unlink(missing_ok=True)


def read_notes(path: Path) -> dict[int, Note] | None:
    """The notes of an owner that is gone, by entry. None where they can't be trusted."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if len(content) != SLOTS * _RECORD.size:
        return None
    notes: dict[int, Note] = {}
    for entry, fate, cost, read, written, cached in _RECORD.iter_unpack(content):
        if entry == 0:
            continue
        try:
            notes[entry] = Note(entry, Fate(fate), cost, read, written, cached)
        except ValueError:
            return None
    return notes
