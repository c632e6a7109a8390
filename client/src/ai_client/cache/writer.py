"""The writing side of the response cache: a thread that stores, evicts and heals, off the event loop."""

import fcntl
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ai_client.cache.file import (
    CacheFile,
    StoredAnswer,
    following_path,
    newest_path,
    row_id,
)
from ai_client.platform.sqlite_file import FILE_MODE, is_corrupt

PAUSE_S: Final = 30.0
DAMAGED_NAME: Final = "damaged.sqlite"
_LOCK_NAME: Final = "heal.lock"
_KEEP_DAMAGED_BYTES: Final = 64 * 1024 * 1024
_BUSY_TIMEOUT_S: Final = 5.0
_MAX_TOUCHED: Final = 512
_GATHER_S: Final = 0.2
_GATHER_BYTES: Final = 4 * 1024 * 1024
_MAX_PENDING_BYTES: Final = 64 * 1024 * 1024
_EVICT_AT_ONCE: Final = 256
_EXPIRE_AT_ONCE: Final = 1_000
_EXPIRE_EVERY_S: Final = 60.0
_VACUUM_PAGES: Final = 2_000


@dataclass(slots=True)
class _Work:
    """What the thread is to do next."""

    answers: dict[bytes, StoredAnswer] = field(default_factory=dict)
    answer_bytes: int = 0
    touched: dict[int, float] = field(default_factory=dict)
    forgotten: set[bytes] = field(default_factory=set)
    damaged: Path | None = None

    def __bool__(self) -> bool:
        return bool(self.answers or self.touched or self.forgotten or self.damaged)


class CacheWriter:
    """Takes answers on the event loop and writes them in a thread of its own.

    What goes wrong in the thread lies in `troubles` until the loop's side tells it; the thread itself never raises
    for a file that is full, busy, damaged or gone, but drops what it was to write.
    """

    def __init__(self, directory: Path, *, max_bytes: int, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._next = _Work()
        self._current = _Work()
        self._file: CacheFile | None = None
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ai-client-cache")
        self._is_running = False
        #: Set where the thread is not to wait for more.
        self._hurry = threading.Event()
        self._last_run: Future[None] | None = None
        self._failed_at_s: float | None = None
        self._expired_at_s = clock()
        #: Of the file that is written to, once one is open.
        self.inode: int | None = None
        self.troubles: deque[Exception] = deque(maxlen=64)
        self.dropped = 0
        self.evicted = 0
        self.healed = 0

    def put(self, key: bytes, answer: StoredAnswer) -> None:
        """Takes an answer to be stored soon. Drops it where the disk can't keep up."""
        with self._lock:
            if self._next.answer_bytes + len(answer.body) > _MAX_PENDING_BYTES:
                self.dropped += 1
                return
            self._next.answers[key] = answer
            self._next.answer_bytes += len(answer.body)
            self._next.forgotten.discard(key)
            self._wake(hurry=self._next.answer_bytes > _GATHER_BYTES)

    def touch(self, key: bytes) -> None:
        """Marks an entry as used now; written with the next answer, or when many have come together."""
        with self._lock:
            self._next.touched[row_id(key)] = self._clock()
            if len(self._next.touched) >= _MAX_TOUCHED:
                self._wake(hurry=False)

    def forget(self, key: bytes) -> None:
        """Deletes an entry."""
        with self._lock:
            self._next.answers.pop(key, None)
            self._next.forgotten.add(key)
            self._wake(hurry=False)

    def heal(self, damaged: Path) -> None:
        """Sets a damaged file aside and begins the next one."""
        with self._lock:
            self._next.damaged = damaged
            self._wake(hurry=True)

    def waiting(self, key: bytes) -> StoredAnswer | None:
        """The answer, where it is taken but not yet in the file."""
        return self._next.answers.get(key) or self._current.answers.get(key)

    def flush(self) -> None:
        """Returns when what was taken is written or dropped. Raises what a defect of this module raised."""
        with self._lock:
            if self._next:
                self._wake(hurry=True)
            last_run = self._last_run
        if last_run is not None:
            last_run.result()

    def close(self) -> None:
        """Writes what was taken and ends the thread."""
        self.flush()
        self._executor.shutdown(wait=True)
        self._close_file()

    def _wake(self, *, hurry: bool) -> None:
        if hurry:
            self._hurry.set()
        if not self._is_running:
            self._is_running = True
            self._last_run = self._executor.submit(self._run)

    def _run(self) -> None:
        while True:
            # A transaction costs more than the rows of a small batch, so a batch is given time to grow.
            self._hurry.wait(_GATHER_S)
            with self._lock:
                self._current, self._next = self._next, _Work()
                self._hurry.clear()
            try:
                self._do(self._current)
            except (sqlite3.Error, OSError) as error:
                self._failed_at_s = self._clock()
                self.dropped += len(self._current.answers)
                self.troubles.append(error)
            with self._lock:
                self._current = _Work()
                if not self._next:
                    self._is_running = False
                    return

    def _do(self, work: _Work) -> None:
        if work.damaged is not None:
            self._set_aside(work.damaged)
        if self._is_paused():
            self.dropped += len(work.answers)
            return
        try:
            self._store(work)
        except sqlite3.Error as error:
            if not is_corrupt(error):
                raise
            self.troubles.append(error)
            self._set_aside(self._file.path if self._file is not None else newest_path(self._directory))
            self._store(work)
        self._failed_at_s = None

    def _is_paused(self) -> bool:
        # The distance and not the order counts, so that a clock set back can't pause for ever.
        return self._failed_at_s is not None and abs(self._clock() - self._failed_at_s) < PAUSE_S

    def _store(self, work: _Work) -> None:
        file = self._opened()
        if work.touched or work.forgotten:
            file.note(touched=work.touched, forgotten=work.forgotten)
        if work.answers:
            self._make_room(file, sum(answer.size_bytes for answer in work.answers.values()))
            file.write(work.answers.items())

    def _opened(self) -> CacheFile:
        """The connection; another one where the file is gone, be it deleted or set aside by another process."""
        if self._file is not None and self._file.inode != _inode_of(self._file.path):
            self._close_file()
        if self._file is None:
            self._file = CacheFile(
                newest_path(self._directory), busy_timeout_s=_BUSY_TIMEOUT_S, makes_file=True
            )
            self.inode = self._file.inode
        return self._file

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = self.inode = None

    def _make_room(self, file: CacheFile, needed_bytes: int) -> None:
        now_s = self._clock()
        excess_bytes = file.used_bytes() + needed_bytes - self._max_bytes
        if excess_bytes > 0 or abs(now_s - self._expired_at_s) >= _EXPIRE_EVERY_S:
            self._expired_at_s = now_s
            self.evicted += file.evict_expired(now_s=now_s, at_most=_EXPIRE_AT_ONCE)
        while (excess_bytes := file.used_bytes() + needed_bytes - self._max_bytes) > 0:
            seen, deleted = file.evict_front(now_s=now_s, bytes_=excess_bytes, at_most=_EVICT_AT_ONCE)
            self.evicted += deleted
            if seen == 0:
                break
        file.shrink(to_bytes=self._max_bytes, at_most_pages=_VACUUM_PAGES)

    def _set_aside(self, damaged: Path) -> None:
        """Begins the next file, unless another process has done so, and keeps a small damaged one for diagnosis."""
        if self._file is not None and self._file.path == damaged:
            self._close_file()
        lock = os.open(self._directory / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if newest_path(self._directory) == damaged and damaged.exists():
                following_path(damaged).touch(FILE_MODE)
                if damaged.stat().st_size <= _KEEP_DAMAGED_BYTES:
                    damaged.replace(self._directory / DAMAGED_NAME)
                for tail in ("", "-wal", "-shm"):
                    damaged.with_name(damaged.name + tail).unlink(missing_ok=True)
                self.healed += 1
        finally:
            os.close(lock)


def _inode_of(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
