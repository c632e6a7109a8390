"""The process of Pulumi's engine that this process runs under: programs and commands have it as an ancestor."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_ENGINE = "pulumi"
_MOST_ANCESTORS = 64


def identity() -> str | None:
    """The engine's process id and start time; None where there is none above this process.

    A process for as long as it lives: ids are used again, start times of one id are not.
    """
    pid = _find()
    return identity_of(pid) if pid else None


def identity_of(pid: int) -> str | None:
    """The same of any process; None where it is gone."""
    fields = _stat(pid)
    return f"{pid}-{fields[19]}" if fields else None


def arguments() -> tuple[str, ...]:
    """What the engine was called with; nothing where there is none above this process."""
    pid = _find()
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes() if pid else b""
        return tuple(os.fsdecode(word) for word in words.split(b"\0")[1:-1])
    return ()


def _find() -> int | None:
    pid = os.getpid()
    for _ in range(_MOST_ANCESTORS):
        fields = _stat(pid)
        pid = int(fields[1]) if fields else 0
        if pid <= 1:
            return None
        if _name(pid) == _ENGINE:
            return pid
    return None


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    return ""


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the name, which may hold anything: state, parent, … start time."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()
    return []
