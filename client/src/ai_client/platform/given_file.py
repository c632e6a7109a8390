"""Reads a file that somebody else provides: whatever has its name, the reader neither waits nor reads for ever.

A pipe (`--config <(…)`) is read to its end, and given up where nobody writes to it.
"""

import errno
import os
import select
import stat
import time
from pathlib import Path
from typing import Final

#: For a configuration of some hundred thousand tenants.
MOST_BYTES: Final = 64 * 1024 * 1024
PATIENCE_S: Final = 5.0
_PIECE_BYTES: Final = 256 * 1024


def read_given(path: Path, *, most_bytes: int = MOST_BYTES, patience_s: float | None = None) -> bytes:
    """All that a file holds. Raises OSError, also where it is a pipe that stays open, or holds more than `most_bytes`.

    Blocks for `patience_s` at most, `PATIENCE_S` where that is not given. Not for the event loop.
    """
    until_s = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)
    # Opening a pipe waits for a writer, and reading it for its bytes, unless one asks not to.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        return _read(file, most_bytes=most_bytes, until_s=until_s)
    finally:
        os.close(file)


def _read(file: int, *, most_bytes: int, until_s: float) -> bytes:
    waits = not stat.S_ISREG(os.fstat(file).st_mode)
    content = bytearray()
    while len(content) <= most_bytes:
        if waits:
            _await(file, until_s)
        piece = os.read(file, _PIECE_BYTES)
        if not piece:
            return bytes(content)
        content += piece
    raise OSError(errno.EFBIG, f"it holds more than {most_bytes // 2**20} MB")


def _await(file: int, until_s: float) -> None:
    """Something can be read, or the end is there: the end of a pipe without a writer is none before it had one."""
    looking = select.poll()
    looking.register(file, select.POLLIN)
    if not looking.poll(max(0.0, until_s - time.monotonic()) * 1000):
        raise OSError(errno.ETIMEDOUT, "it is a pipe, and nobody writes to its end")
