"""The audit trail: one hash-chained line for every API call, in a file a day (form and check: `chain.py`).

Several processes write one chain: whoever writes holds a lock on `audit.head` for the microseconds that it takes. Lines
of one turn of the event loop, or of several where each brings more, go out in one write. What can't be written waits,
up to a bound; what is lost beyond it is counted in the trail itself.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time as wall_clock
from typing import Final

from ai_client.audit.chain import (
    EMPTY_HEAD,
    HEAD_NAME,
    Anchor,
    CallTexts,
    Head,
    chained,
    file_name,
    files_before,
    format_head,
    parse_head,
    text_of,
    whole_lines,
)
from ai_client.contract.events import Event, EventStream, Failed, Settled, StoreDegraded
from ai_client.platform.loop import RunningLoop

FILE_MODE: Final = 0o640
_MAX_WAITING: Final = 10_000
_BUSY_WAIT_S: Final = 0.002
_RETRY_WAIT_S: Final = 1.0
# Turns of the event loop for which lines wait for company, where each brings more.
_MOST_TURNS: Final = 16
_ANCHOR_EVERY_S: Final = 3600.0


class AuditTrail:
    """A listener of the event stream: `events.subscribe(trail)`. Close it to write what waits."""

    def __init__(
        self,
        folder: Path,
        *,
        retention_days: int,
        events: EventStream | None = None,
        clock: Callable[[], float] = wall_clock,
        on_anchor: Callable[[Anchor], None] | None = None,
    ) -> None:
        """Raises OSError where the folder can't be written: then it is not too late to say so.

        `on_anchor` is given the last line's number and hash once an hour, with each new file, and at the end: to be
        kept where whoever may write the trail can't change it.
        """
        self._folder = folder
        self._retention = timedelta(days=retention_days)
        self._events = events or EventStream()
        self._clock = clock
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._head_file = os.open(folder / HEAD_NAME, flags, FILE_MODE)
        self._file = -1
        self._file_name = ""
        self._texts = CallTexts()
        self._waiting: list[bytes] = []
        self._is_scheduled = False
        self._loop = RunningLoop()
        self._lost = 0
        self._is_told = False
        self._on_anchor = on_anchor
        self._anchor: Anchor | None = None
        self._anchored_at_s = clock()
        self._retired_before = ""
        self._settle()

    def _settle(self) -> None:
        """Takes in what a process that was killed had written behind the head."""
        fcntl.flock(self._head_file, fcntl.LOCK_EX)
        try:
            head = self._read_head()
            if head.file and (self._folder / head.file).exists():
                self._open(head.file)
                if (caught_up := self._caught_up(head, head.file)) != head:
                    self._write_head(caught_up)
        finally:
            fcntl.flock(self._head_file, fcntl.LOCK_UN)

    def __call__(self, event: Event) -> None:
        """Takes the last event of a request; all others are passed over."""
        if not isinstance(event, Settled | Failed):
            return
        if len(self._waiting) >= _MAX_WAITING:
            self._lost += 1
            return
        self._waiting.append(self._texts.of(event))
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.get().call_soon(self._gather, 1, _MOST_TURNS)

    def flush(self) -> None:
        """Writes what waits, and waits for other processes to do so. Raises OSError."""
        fcntl.flock(self._head_file, fcntl.LOCK_EX)
        try:
            self._write()
        finally:
            fcntl.flock(self._head_file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Writes what waits and closes the files. Raises OSError."""
        if self._head_file < 0:
            return
        try:
            self.flush()
            self._tell_anchor()
        finally:
            os.close(self._head_file)
            self._head_file = -1
            self._close_file()

    def _gather(self, before: int, turns: int) -> None:
        """Writes, unless more has come within this turn of the loop: a write costs as much as eight of its lines."""
        count = len(self._waiting)
        if count > before and turns > 1:
            self._loop.get().call_soon(self._gather, count, turns - 1)
        else:
            self._flush()

    def _flush(self) -> None:
        self._is_scheduled = False
        if self._head_file < 0:
            return
        try:
            fcntl.flock(self._head_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._later(_BUSY_WAIT_S)
            return
        try:
            self._write()
        except OSError as error:
            self._tell(error)
            self._later(_RETRY_WAIT_S)
        finally:
            fcntl.flock(self._head_file, fcntl.LOCK_UN)

    def _later(self, wait_s: float) -> None:
        self._is_scheduled = True
        self._loop.get().call_later(wait_s, self._flush)

    def _tell(self, error: OSError) -> None:
        if not self._is_told:
            self._is_told = True
            reason = f"{type(error).__name__}: {error.strerror}"
            self._events.emit(StoreDegraded(at=self._clock(), store="audit", reason=reason))

    def _write(self) -> None:
        """The lock is held. All that waits goes out in one write, or none of it does."""
        if not self._waiting and not self._lost:
            return
        head = self._read_head()
        # After the clock was set back the newest file goes on: the files' order is the chain's.
        name = file_name(self._clock())
        if head.file > name and (self._folder / head.file).exists():
            name = head.file
        self._open(name)
        head = self._caught_up(head, name)
        texts: list[bytes] = []
        is_new_file = head.file != name or head.size == 0
        if is_new_file:
            texts.append(text_of({"kind": "begin", "previous": head.hash, "file_before": head.file}))
            head = head._replace(file=name, size=0)
        if self._retired_before:
            texts.append(text_of({"kind": "retired", "before": self._retired_before}))
        if self._lost:
            texts.append(text_of({"kind": "lost", "calls": self._lost}))
        self._append(head, texts + self._waiting)
        self._waiting = []
        self._lost = 0
        self._retired_before = ""
        if is_new_file or abs(self._clock() - self._anchored_at_s) >= _ANCHOR_EVERY_S:
            self._tell_anchor()

    def _tell_anchor(self) -> None:
        anchor, self._anchor = self._anchor, None
        if anchor is not None and self._on_anchor is not None:
            self._anchored_at_s = self._clock()
            self._on_anchor(anchor)

    def _append(self, head: Head, texts: Sequence[bytes]) -> None:
        lines = []
        digest = head.hash
        for seq, text in enumerate(texts, head.seq + 1):
            line, digest = chained(text, seq=seq, previous=digest)
            lines.append(line)
        content = b"".join(lines)
        if os.write(self._file, content) != len(content):
            os.ftruncate(self._file, head.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = Head(head.seq + len(lines), digest, head.file, head.size + len(content))
        self._write_head(written)
        self._anchor = Anchor(written.seq, written.hash)

    def _caught_up(self, head: Head, name: str) -> Head:
        """The head, moved over lines of a process that was killed before it could write it; torn ones go."""
        size = os.fstat(self._file).st_size
        known = head.size if head.file == name else 0
        if size <= known:
            return head._replace(size=size) if head.file == name else head
        with open(self._file, "rb", closefd=False) as content:
            content.seek(known)
            unknown = content.read()
        for seq, digest, end in whole_lines(unknown):
            head = Head(seq, digest, name, known + end)
        if size != head.size or head.file != name:
            os.ftruncate(self._file, head.size if head.file == name else 0)
        return head

    def _read_head(self) -> Head:
        return parse_head(os.pread(self._head_file, 256, 0)) or EMPTY_HEAD

    def _write_head(self, head: Head) -> None:
        os.pwrite(self._head_file, format_head(head), 0)

    def _open(self, name: str) -> None:
        """The day's file, also where it was deleted under us; a new day deletes what is too old."""
        if self._file_name == name and os.fstat(self._file).st_nlink:
            return
        self._close_file()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(self._folder / name, flags, FILE_MODE)
        self._file_name = name
        oldest = datetime.fromtimestamp(self._clock(), UTC) - self._retention
        retired_before = file_name(oldest.timestamp())
        for path in files_before(self._folder, retired_before):
            path.unlink(missing_ok=True)
            self._retired_before = retired_before

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
        self._file_name = ""
