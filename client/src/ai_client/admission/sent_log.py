"""The rate window's memory: which requests were sent in the last minute, on disk the moment that they are.

A snapshot taken every second forgets, after a kill, what was sent since. Here each sent request is two numbers in a
mapped file that is used as a ring; it outlives the process (not the machine: by the time that is up again, the minute
is over), and costs no system call. What the next process reads is in the form of `SlidingWindow.restore`.

Each process writes to a file of its own, so that one may start while another one still drains.
"""

import fcntl
import mmap
import os
import re
import struct
from pathlib import Path
from typing import Any, Final

FILE_MODE: Final = 0o600
_RECORD: Final = struct.Struct("<dq")
_FILE_NAME: Final = re.compile(r"sent-\d+\.ring")
_MAX_FILES: Final = 64
# A record at 0 is none.
_EARLIEST_S: Final = 1.0
# What a record holds.
_MOST_TOKENS: Final = 2**62


class SentLog:
    """The ring of this process, in a folder with those of the ones before it. Raises OSError where it can't write.

    `slots` must be more than are sent in any minute: the rate limit and a margin.
    """

    def __init__(self, folder: Path, *, slots: int) -> None:
        """Takes the first file that no living process holds."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._slots = slots
        self._file = take_file(folder, "sent-{}.ring")
        try:
            self._map = self._mapped(slots)
        except OSError:
            os.close(self._file)
            raise
        view = memoryview(self._map)
        self._times, self._tokens = view.cast("d"), view.cast("q")

    def _mapped(self, slots: int) -> mmap.mmap:
        size = slots * _RECORD.size
        old = os.pread(self._file, os.fstat(self._file).st_size, 0)
        records = [record for record in _records(old) if record[0] > 0]
        # The newest of what was there comes first, then the ring goes on behind it.
        kept = sorted(records)[-(slots - 1) :]
        os.posix_fallocate(self._file, 0, size)
        content = b"".join(_RECORD.pack(*record) for record in kept).ljust(size, b"\0")
        os.pwrite(self._file, content, 0)
        os.ftruncate(self._file, size)
        self._next = len(kept)
        return mmap.mmap(self._file, size)

    def sent(self, *, at_s: float, tokens: int) -> int:
        """A request is being sent at `at_s` (wall clock) and counts with `tokens`; its slot, for `settle`."""
        slot = self._next
        self._next = (slot + 1) % self._slots
        # In this order, so that a kill between the two leaves an old record and no new one without its tokens.
        self._tokens[2 * slot + 1] = min(tokens, _MOST_TOKENS)
        self._times[2 * slot] = at_s
        return slot

    def settle(self, slot: int, *, at_s: float, tokens: int) -> None:
        """It really used so many tokens. `at_s` is as it was given to `sent`: a slot that has gone on is left."""
        if slot < self._slots and self._times[2 * slot] == at_s:
            self._tokens[2 * slot + 1] = min(tokens, _MOST_TOKENS)

    def shift(self, by_s: float) -> None:
        """The wall clock was set by so much: the times of all records with it."""
        for place in range(0, 2 * self._slots, 2):
            if self._times[place] > 0:
                self._times[place] = max(self._times[place] + by_s, _EARLIEST_S)

    def snapshot(self, *, since_s: float) -> dict[str, Any]:
        """See `sent_since`."""
        return sent_since(self._folder, since_s)

    def close(self) -> None:
        """Leaves the file to the next process."""
        if self._file >= 0:
            self._times.release()
            self._tokens.release()
            self._map.close()
            os.close(self._file)
            self._file = -1


def sent_since(folder: Path, since_s: float) -> dict[str, Any]:
    """What all processes of a folder have sent since `since_s`, for `SlidingWindow.restore`. Raises OSError.

    Also for a process that has no ring of its own: reading takes no room on a full disk.
    """
    found: list[tuple[float, int]] = []
    for path in sorted(folder.iterdir()):
        if _FILE_NAME.fullmatch(path.name) and path.is_file():
            found += _records(path.read_bytes())
    return {
        "version": 1,
        "entries": [[at_s, 1, tokens] for at_s, tokens in sorted(found) if at_s >= since_s],
    }


def take_file(folder: Path, name: str) -> int:
    """Opens the first file of that name (with a number in it) that no living process holds. Raises OSError."""
    for number in range(1, _MAX_FILES + 1):
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(folder / name.format(number), flags, FILE_MODE)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
        else:
            return file
    raise OSError(f"all {_MAX_FILES} files in {folder} are held by other processes; end some of them")


def _records(content: bytes) -> list[tuple[float, int]]:
    whole = len(content) - len(content) % _RECORD.size
    found: list[tuple[float, int]] = list(_RECORD.iter_unpack(content[:whole]))
    return [(at_s, tokens) for at_s, tokens in found if at_s > 0 and tokens >= 0]
