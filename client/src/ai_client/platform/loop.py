"""The running event loop, for those who need it with every request, and who may use what belongs to it."""

from __future__ import annotations

import asyncio
import os
import threading


class _Forks:
    """How often this process, or one before it, was forked since this module was loaded."""

    count = 0


def _forked() -> None:
    _Forks.count += 1


os.register_at_fork(after_in_child=_forked)


class ForkMark:
    """Made where something begins to exist; tells in a child process that it was made in its parent."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = _Forks.count

    @property
    def is_forked(self) -> bool:
        """Whether this process is a fork of the one in which the mark was made."""
        return self._count != _Forks.count


class RunningLoop:
    """Remembers the loop. On Python 3.11 asking asyncio is a system call; that this one runs is known without.

    For things that one loop at a time uses: one after another is fine, as where a script calls `asyncio.run` twice.
    """

    __slots__ = ("_forks", "_loop", "_thread")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._forks = 0

    def get(self) -> asyncio.AbstractEventLoop:
        """The running loop. Raises RuntimeError where none is."""
        loop = self._loop
        if (
            loop is None
            or self._thread != threading.get_ident()
            or self._forks != _Forks.count
            or not loop.is_running()
        ):
            loop = self._loop = asyncio.get_running_loop()
            self._thread, self._forks = threading.get_ident(), _Forks.count
        return loop

    @property
    def is_elsewhere(self) -> bool:
        """Whether the loop that was remembered runs at this moment in another thread."""
        return (
            self._loop is not None
            and self._thread != threading.get_ident()
            and self._forks == _Forks.count
            and self._loop.is_running()
        )
