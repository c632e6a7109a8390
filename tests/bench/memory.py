"""How much memory a program and all that it started need at the most, pages that they share counted once."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

_EVERY_S = 0.5
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


class Peak:
    """Looks at the descendants of this process from time to time; `mb` is the most that they had together."""

    def __init__(self) -> None:
        self.mb = 0.0
        self._end = threading.Event()
        self._looking = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._looking.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._looking.join()

    def _look(self) -> None:
        while not self._end.wait(_EVERY_S):
            self.mb = max(self.mb, sum(map(_pss_kb, descendants(os.getpid()))) / 1024)


def descendants(pid: int) -> set[int]:
    """Every process that a process started, and those that they started."""
    parents = dict(_parents())
    found: set[int] = set()
    todo = {pid}
    while todo:
        todo = {child for child, parent in parents.items() if parent in todo} - found
        found |= todo
    return found


def _parents() -> list[tuple[int, int]]:
    rows = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        rows.append((int(path.parent.name), int(state[1])))
    return rows


def _pss_kb(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = _PSS.search(text)
    return int(found[1]) if found else 0
