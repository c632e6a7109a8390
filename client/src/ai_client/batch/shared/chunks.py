"""The input of a batch in chunks: some lines each, read in constant memory from any chunk's beginning."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ai_client.batch.lines import BadLine, RequestLine, parse
from ai_client.batch.source import InputError, open_input

#: A chunk ends with the line that makes it reach either.
MOST_LINES = 16
ENOUGH_BYTES = 256_000
_HEAD = struct.Struct(">QI")
_TOO_LONG = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class ReadChunk:
    """Lines from `offset` to `end` of a file; `first` to `last` by number, `count` of them not blank."""

    offset: int
    end: int
    first: int
    last: int
    count: int
    packed: bytes = field(repr=False)


def read_chunks(source: Path, *, offset: int, last: int, max_line_bytes: int) -> Iterator[ReadChunk]:
    """What follows `offset`, before which line `last` ended. Blank lines at the end are in no chunk.

    Raises InputError, and OSError where reading fails.
    """
    with open_input(source) as file:
        file.seek(offset)
        number, begin = last, offset
        packed: list[bytes] = []
        size, first = 0, last + 1
        while raw := file.readline(max_line_bytes + 1):
            number += 1
            is_too_long = len(raw) > max_line_bytes
            while is_too_long and raw and not raw.endswith(b"\n"):
                raw = file.readline(max_line_bytes)
            if is_too_long:
                packed.append(_HEAD.pack(number, _TOO_LONG))
            elif raw.strip():
                packed.append(_HEAD.pack(number, len(raw)) + raw)
                size += len(raw)
            if len(packed) >= MOST_LINES or size >= ENOUGH_BYTES:
                end = file.tell()
                yield ReadChunk(begin, end, first, number, len(packed), b"".join(packed))
                begin, packed, size, first = end, [], 0, number + 1
        if packed:
            yield ReadChunk(begin, file.tell(), first, number, len(packed), b"".join(packed))


def lines_of(packed: bytes, *, max_line_bytes: int) -> Iterator[RequestLine | BadLine]:
    """The lines of a chunk."""
    at = 0
    while at < len(packed):
        number, length = _HEAD.unpack_from(packed, at)
        at += _HEAD.size
        if length == _TOO_LONG:
            yield BadLine(number, None, f"is longer than {max_line_bytes} bytes")
        else:
            yield parse(number, packed[at : at + length])
            at += length


@dataclass(frozen=True, slots=True)
class Identity:
    """Tells an input from another one: its size and the SHA-256 of all of it."""

    size: int
    sha256: str

    @classmethod
    def of(cls, source: Path) -> Identity:
        """Reads the whole file. Raises InputError."""
        try:
            with open_input(source) as file:
                digest = hashlib.file_digest(file, "sha256")
                return cls(file.tell(), digest.hexdigest())
        except OSError as exc:
            raise InputError(f"{source} can't be read ({exc.strerror}); name a file of requests") from exc

    def as_bytes(self) -> bytes:
        return json.dumps([self.size, self.sha256]).encode()

    @classmethod
    def from_bytes(cls, told: bytes) -> Identity:
        return cls(*json.loads(told))


@dataclass(frozen=True, slots=True)
class Stamp:
    """Changes with a file's content, without a look at it."""

    device: int
    inode: int
    size: int
    changed_at_ns: int

    @classmethod
    def of(cls, source: Path) -> Stamp:
        """Raises InputError."""
        try:
            found = source.stat()
        except OSError as exc:
            raise InputError(f"{source} can't be read ({exc.strerror}); name a file of requests") from exc
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
