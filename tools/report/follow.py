"""Brings a stack up and shows how far it has come: `tools/up STACK [OPTIONS OF pulumi up]`.

On a terminal one line is kept up to date; elsewhere, as in a CI log, a line is printed where something has changed, at
most every few seconds. It asks nothing: look at a preview first, and hold `up` to it with `fleet:requirePlan`.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from pulumi.automation.events import EngineEvent

from infra.report.events import PreviewError, engine_event
from tools.report.progress import Progress, outcomes, summary

_TICK_S = 0.5
_BETWEEN_LINES_S = 5.0
_RUNS = "ai-client-fleet-*/results.jsonl"
_IN_MEMORY = re.compile(r"/proc/(\d+)/fd/")
_MOST_ANCESTORS = 64


class Display:
    """Where progress is shown: lines that stay, and one that is kept up to date."""

    def __init__(self, out: IO[str], *, verb: str, started_s: float) -> None:
        self._out = out
        self._verb = verb
        self._started_s = started_s
        self._is_terminal = out.isatty()
        self._shown = ""
        self._shown_s = -_BETWEEN_LINES_S

    def say(self, text: str, *, now_s: float) -> None:
        """Prints a line that stays."""
        self._clear()
        print(self._timed(text, now_s), file=self._out, flush=True)

    def status(self, text: str, *, now_s: float) -> None:
        """Shows how things stand."""
        if self._is_terminal:
            self._clear()
            self._shown = text
            self._out.write(self._timed(text, now_s)[: _columns()] if text else "")
            self._out.flush()
        elif text and text != self._shown and now_s - self._shown_s >= _BETWEEN_LINES_S:
            self._shown, self._shown_s = text, now_s
            self.say(text, now_s=now_s)

    def close(self) -> None:
        """Takes the line away that was kept up to date."""
        self._clear()
        self._out.flush()

    def _clear(self) -> None:
        if self._is_terminal and self._shown:
            self._out.write("\r\x1b[K")
            self._shown = ""

    def _timed(self, text: str, now_s: float) -> str:
        return f"{self._verb} {now_s - self._started_s:6.1f}s  {text}"


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns - 1
    except OSError:
        return 79


def follow(argv: Sequence[str], *, verb: str, out: IO[str]) -> tuple[int, Progress]:
    """Runs the engine with its events as JSON lines on standard output, and shows how far it has come.

    Args:
        argv: the engine's command line.
        verb: what is being done, for people.
        out: where progress is shown.

    Returns:
        The engine's exit status, and all that was told.
    """
    progress, display = Progress(), Display(out, verb=verb, started_s=time.monotonic())
    reader, writer = os.pipe()
    with subprocess.Popen(argv, stdout=writer) as engine:
        os.close(writer)
        for events in _events(reader):
            for line in [line for event in events for line in progress.heed(event)]:
                display.say(line, now_s=time.monotonic())
            if progress.running:
                progress.take_results(_results(engine.pid))
            display.status(progress.status(), now_s=time.monotonic())
        display.close()
        os.close(reader)
    return engine.returncode, progress


def _events(reader: int) -> Iterator[list[EngineEvent]]:
    """The events that have come, as they come; none at a tick of the clock. Ends with the engine's output."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        while True:
            lines: list[bytes] = []
            if selector.select(_TICK_S):
                piece = os.read(reader, 1 << 16)
                if not piece:
                    return
                *lines, rest = (rest + piece).split(b"\n")
            yield [event for line in lines if (event := _event(line))]


def _event(line: bytes) -> EngineEvent | None:
    """An event of the engine; None for anything else that is printed, and for what is not understood."""
    try:
        event = engine_event(line)
    except PreviewError:
        return None
    return event.told if event else None


def _results(engine: int) -> dict[str, bool]:
    """What hosts have come to in the runs that are under way below the engine's process."""
    results: dict[str, bool] = {}
    for path in Path(tempfile.gettempdir()).glob(_RUNS):
        with contextlib.suppress(OSError):  # the run has just ended
            # A run keeps it in memory: the link names the process.
            run = _IN_MEMORY.match(str(path.readlink()))
            if run and _is_below(int(run[1]), engine):
                results |= outcomes(path.read_text().splitlines())
    return results


def _is_below(pid: int, ancestor: int) -> bool:
    """Whether a process is a descendant of another."""
    for _ in range(_MOST_ANCESTORS):
        if pid in (0, 1, ancestor):
            break
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        pid = int(stat.rpartition(")")[2].split()[1])
    return pid == ancestor


def main(argv: Sequence[str]) -> int:
    """Brings the stack up; the engine's own exit status."""
    if not argv or not re.fullmatch(r"[A-Za-z0-9][\w./-]*", argv[0]):
        print("usage: tools/up STACK [OPTIONS OF pulumi up]", file=sys.stderr)
        return 2
    stack, *options = argv
    words = ["pulumi", "up", "--yes", "--skip-preview", "--json", "--non-interactive", "--stack", stack]
    status, progress = follow([*words, *options], verb="up", out=sys.stderr)
    for told in progress.told():
        print(told, file=sys.stderr)
    print(f"{stack}: {summary(progress.changes)}" if status == 0 else f"{stack}: up failed", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
