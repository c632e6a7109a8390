"""The configuration file as a reload reads it: whoever writes it in place may be only half done."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from ai_client.platform.clock import Clock
from ai_client.settings import ConfigError, Problem, has_entries, read_config

# A change is believed when two looks with a pause between them see the same file. One that became shorter, or empty,
# gets longer: it is cut to nothing before it is written.
PAUSE_S = 0.05
SHORTER_PAUSE_S = 0.25
MOST_LOOKS = 12


@dataclass(frozen=True, slots=True)
class _Look:
    data: bytes
    #: Inode, size and time of change, before it was read and after.
    before: tuple[int, int, int]
    after: tuple[int, int, int]

    @property
    def is_whole(self) -> bool:
        return self.before == self.after and self.after[1] == len(self.data)


class ConfigFile:
    """The file at `path`, and the bytes of it that are `in_use`. Without a path there is nothing to read."""

    def __init__(self, path: Path | None, *, clock: Clock) -> None:
        self._path, self._clock = path, clock
        self.in_use = None if path is None else read_config(path)

    async def settled(self) -> bytes | None:
        """What it holds, once nobody writes it any more.

        Raises ConfigError where it can't be read, goes on changing, or lost all that it held.
        """
        if self._path is None or self.in_use is None:
            return None
        last = await asyncio.to_thread(_look, self._path)
        if last.is_whole and last.data == self.in_use:
            return last.data
        for _ in range(MOST_LOOKS):
            await self._pause(last.data)
            now = await asyncio.to_thread(_look, self._path)
            if now == last and now.is_whole and not self._is_lost(now.data):
                return now.data
            last = now
        raise ConfigError(path=str(self._path), problems=(self._problem(last.data),))

    async def _pause(self, data: bytes) -> None:
        is_shorter = len(data) < len(self.in_use or b"")
        pause_s = SHORTER_PAUSE_S if is_shorter else PAUSE_S
        await self._clock.sleep_until(self._clock.monotonic() + pause_s)

    def _is_lost(self, data: bytes) -> bool:
        return not has_entries(data) and has_entries(self.in_use or b"")

    def _problem(self, data: bytes) -> Problem:
        if self._is_lost(data):
            reason = "is empty now, and the configuration in use is not"
            remedy = "write it again and reload; a restart takes an empty file, with every default"
        else:
            reason, remedy = (
                "is being written all the time",
                "reload when it is done, or write it by a rename",
            )
        return Problem(None, None, None, reason, remedy)


def _look(path: Path) -> _Look:
    before = _mark(path)
    return _Look(read_config(path), before, _mark(path))


def _mark(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)  # `read_config` says why
    return (found.st_ino, found.st_size, found.st_mtime_ns)
