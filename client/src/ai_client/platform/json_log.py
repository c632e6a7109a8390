"""JSON logs: one line an event, a file a day, old files removed; safe with several processes.

A day's file is named after its date, so rotation is opening another name: nothing is renamed under a process that
still writes, and a line is one `write` to a file opened for appending, so lines of two processes never mix.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from ai_client.errors import redact

FILE_MODE = 0o640
STEM = "ai-client"
_FIELDS = "fields"
# How often a file is looked for by its name.
LOOK_S = 1.0


class DailyFile:
    """Appends lines to `STEM-YYYY-MM-DD.jsonl` (the UTC date) and removes those older than `retention_days`."""

    def __init__(
        self, folder: Path, *, stem: str, retention_days: int, wall_clock: Callable[[], float]
    ) -> None:
        self._folder = folder
        self._stem = stem
        self._retention = timedelta(days=retention_days)
        self._wall_clock = wall_clock
        self._descriptor: int | None = None
        self._ends_s = 0.0
        self._path = folder
        self._looked_s = 0.0
        self._is_torn = False

    def write(self, line: bytes) -> None:
        """Append one line, its newline included. Raises OSError.

        Of a line that a full disk took in part the rest is lost; the next one begins a line of its own.
        """
        now_s = self._wall_clock()
        if self._descriptor is None or now_s >= self._ends_s or now_s < self._ends_s - 86_400:
            self._open(now_s)
        elif abs(now_s - self._looked_s) >= LOOK_S:
            self._looked_s = now_s
            if not self._is_in_place(self._descriptor):
                self._open(now_s)
        if self._descriptor is not None:
            self._append(self._descriptor, b"\n" + line if self._is_torn else line)

    def _append(self, descriptor: int, content: bytes) -> None:
        written = os.write(descriptor, content)
        self._is_torn = 0 < written < len(content) or (self._is_torn and not written)
        if written < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _is_in_place(self, descriptor: int) -> bool:
        """Whether the file that is open is the one that has its name: it may have been deleted, or rotated away."""
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return False
        opened = os.fstat(descriptor)
        return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)

    def close(self) -> None:
        """Close the day's file; the next line opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self, now_s: float) -> None:
        self.close()
        self._is_torn = False
        today = datetime.fromtimestamp(now_s, UTC).date()
        self._path = self._folder / f"{self._stem}-{today.isoformat()}.jsonl"
        self._looked_s = now_s
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, FILE_MODE)
        midnight = datetime(today.year, today.month, today.day, tzinfo=UTC)
        self._ends_s = (midnight + timedelta(days=1)).timestamp()
        for old in expired(self._folder, stem=self._stem, before=today - self._retention):
            old.unlink(missing_ok=True)


def expired(folder: Path, *, stem: str, before: date) -> list[Path]:
    """The day files of `stem` in a folder whose date lies before `before`."""
    pattern = re.compile(rf"{re.escape(stem)}-(\d{{4}}-\d\d-\d\d)\.jsonl")
    found = []
    for path in folder.iterdir():
        match = pattern.fullmatch(path.name)
        if match and match[1] < before.isoformat():
            found.append(path)
    return found


class JsonHandler(logging.Handler):
    """Writes records as JSON lines: `at`, `level`, `event`, `pid`, and the record's `fields`."""

    def __init__(self, file: DailyFile) -> None:
        super().__init__()
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`. A full disk must not stop the service: stderr says so instead."""
        try:
            self._file.write(line_of(record))
        except OSError as exc:
            sys.stderr.write(f"log line lost: {exc.strerror}\n")

    def close(self) -> None:
        """Called by `logging`."""
        self._file.close()
        super().close()


def line_of(record: logging.LogRecord) -> bytes:
    """One JSON line; texts that look like keys are masked, and newlines are escaped by JSON itself."""
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    entry: dict[str, Any] = {
        "at": at.replace("+00:00", "Z"),
        "level": record.levelname,
        "event": record.getMessage(),
        "logger": record.name,
        "pid": record.process,
    }
    entry |= getattr(record, _FIELDS, {})
    if record.exc_info and record.exc_info[1] is not None:
        entry["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        entry["trace"] = logging.Formatter().formatException(record.exc_info)
    return (redact(json.dumps(entry, separators=(",", ":"), default=str)) + "\n").encode()


def fields(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Facts for a record: `logger.info("slow_request", extra=fields({...}))`."""
    return {_FIELDS: values}


def start(*, folder: Path, level: str, retention_days: int, wall_clock: Callable[[], float]) -> JsonHandler:
    """Log everything of this process into `folder`, and warnings to stderr as well (the journal, under systemd)."""
    file = DailyFile(folder, stem=STEM, retention_days=retention_days, wall_clock=wall_clock)
    handler = JsonHandler(file)
    console = logging.StreamHandler()
    console.setLevel(logging.WARNING)
    console.setFormatter(_ConsoleFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.addHandler(console)
    root.setLevel(level)
    # A line for each step of every connection is no event.
    logging.getLogger("asyncio").setLevel(max(logging.INFO, root.level))
    return handler


class _ConsoleFormatter(logging.Formatter):
    """`LEVEL event key=value …`."""

    def format(self, record: logging.LogRecord) -> str:
        """Called by `logging`."""
        facts = "".join(f" {name}={value}" for name, value in getattr(record, _FIELDS, {}).items())
        text = f"{record.levelname} {record.getMessage()}{facts}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return redact(text)
