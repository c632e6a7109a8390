"""The running event loop, for those who need it with every request."""

from __future__ import annotations

import asyncio


class RunningLoop:
    """Remembers the loop. On Python 3.11 asking asyncio is a system call; that this one runs is known without.

    For things that one loop at a time uses: one after another is fine, as where a script calls `asyncio.run` twice.
    """

    __slots__ = ("_loop",)

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def get(self) -> asyncio.AbstractEventLoop:
        """The running loop. Raises RuntimeError where none is."""
        loop = self._loop
        if loop is None or not loop.is_running():
            loop = self._loop = asyncio.get_running_loop()
        return loop
