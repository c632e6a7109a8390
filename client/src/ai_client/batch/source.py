"""The input of a batch, read line by line in constant memory."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from ai_client.batch.lines import BadLine, RequestLine, parse
from ai_client.batch.output import Done, write_whole

HEAD_BYTES = 64 * 1024


class InputError(Exception):
    """The input can't be used; the text names it, the reason and the remedy."""


def open_input(path: Path) -> BufferedReader:
    """A regular file: an input is read more than once, and from any place. Raises InputError."""
    try:
        # A pipe that nobody writes to would keep a plain open waiting for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise InputError(f"{path} can't be read ({exc.strerror}); name a file of requests") from exc
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path} is not a regular file; write the requests into one, and name that")
    return os.fdopen(descriptor, "rb")


@dataclass(frozen=True, slots=True)
class InputIdentity:
    """Tells whether an input is still the one that a run began with: lines may be added, but not changed."""

    size: int
    head_sha256: str

    @classmethod
    def of(cls, path: Path, *, size: int | None = None) -> InputIdentity:
        """That of a file, or of its first `size` bytes. Raises InputError."""
        try:
            with open_input(path) as file:
                whole = os.fstat(file.fileno()).st_size
                known = whole if size is None else size
                return cls(known, hashlib.sha256(file.read(min(known, HEAD_BYTES))).hexdigest())
        except OSError as exc:
            raise InputError(f"{path} can't be read ({exc.strerror}); name a file of requests") from exc


def check_same(source: Path, memory: Path) -> None:
    """Remember the input beside the output, or compare it with what is remembered. Raises InputError."""
    if memory.exists():
        before = _remembered(memory)
        if source.stat().st_size < before.size or InputIdentity.of(source, size=before.size) != before:
            remedy = f"use the same input, or name another output ({memory} remembers the first one)"
            raise InputError(f"{source} is not the input that this output was started with; {remedy}")
    now = InputIdentity.of(source)
    write_whole(memory, json.dumps({"size": now.size, "head_sha256": now.head_sha256}))


def _remembered(memory: Path) -> InputIdentity:
    try:
        told = json.loads(memory.read_text("utf-8"))
        return InputIdentity(int(told["size"]), str(told["head_sha256"]))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        remedy = "name another output, or remove both files"
        raise InputError(f"{memory} can't be read ({type(exc).__name__}); {remedy}") from exc


class Source:
    """The lines of a file that are still to do; `position` says how far reading is, in bytes."""

    def __init__(self, path: Path, *, done: Done, max_line_bytes: int) -> None:
        self._path = path
        self._done = done
        self._max_line_bytes = max_line_bytes
        self.position = 0
        self.size = path.stat().st_size

    def __iter__(self) -> Iterator[RequestLine | BadLine]:
        number = 0
        with open_input(self._path) as file:
            while raw := file.readline(self._max_line_bytes + 1):
                number += 1
                self.position = file.tell()
                is_too_long = len(raw) > self._max_line_bytes
                while is_too_long and raw and not raw.endswith(b"\n"):
                    raw = file.readline(self._max_line_bytes)
                if number in self._done or (not is_too_long and not raw.strip()):
                    continue
                if is_too_long:
                    yield BadLine(number, None, f"is longer than {self._max_line_bytes} bytes")
                else:
                    yield parse(number, raw)
