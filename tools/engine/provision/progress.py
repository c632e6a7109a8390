"""Shows on stderr what is being done: a live line on a terminal, else a line per step."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

HEARTBEAT_S = 60.0


@dataclass
class Progress:
    """One step at a time; `stream` is where the user looks."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)

    def say(self, text: str) -> None:
        """One line that stays."""
        clear = "\r\033[K" if self.stream.isatty() else ""
        print(f"{clear}engine: {text}", file=self.stream, flush=True)

    @contextmanager
    def step(self, text: str) -> Iterator[Step]:
        """Announces a step; at its end says how many seconds it took."""
        step = Step(text, stream=self.stream, is_live=self.stream.isatty(), started_s=time.monotonic())
        if not step.is_live:
            self.say(f"{text} …")
        yield step
        self.say(f"{text}: took {step.elapsed_s():.0f} s")


@dataclass
class Step:
    """A step under way."""

    text: str
    stream: TextIO
    is_live: bool
    started_s: float
    _last_beat_s: float = 0.0

    def elapsed_s(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self.started_s

    def beat(self, detail: str) -> None:
        """Called often; shows `detail` at once on a terminal, else once a minute."""
        elapsed_s = self.elapsed_s()
        if self.is_live:
            print(
                f"\r\033[Kengine: {self.text}, {elapsed_s:.0f} s, {detail}",
                end="",
                file=self.stream,
                flush=True,
            )
        elif elapsed_s - self._last_beat_s >= HEARTBEAT_S:
            self._last_beat_s = elapsed_s
            print(f"engine: {self.text}, {elapsed_s:.0f} s, {detail}", file=self.stream, flush=True)
