"""Brings a stack up and shows how far it has come: `tools/up STACK [OPTIONS OF pulumi up]`.

On a terminal one line is kept up to date; elsewhere, as in a CI log, a line is printed where something has changed, at
most every few seconds. It asks nothing: look at a preview first, and hold `up` to it with `fleet:requirePlan`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from tools.progress import Progress, outcomes, summary

_TICK_S = 0.5
_BETWEEN_LINES_S = 5.0
_RUNS = "ai-client-fleet-*/results.jsonl"


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
        return 100


def follow(argv: Sequence[str], *, stack: str, verb: str, out: IO[str]) -> tuple[int, Progress]:
    """Runs the engine with its events as JSON lines on standard output, and shows how far it has come.

    Args:
        argv: the engine's command line.
        stack: name of the stack, by which runs on hosts are known.
        verb: what is being done, for people.
        out: where progress is shown.

    Returns:
        The engine's exit status, and all that was told.
    """
    progress, display = Progress(), Display(out, verb=verb, started_s=time.monotonic())
    began_s = time.time()
    reader, writer = os.pipe()
    with subprocess.Popen(argv, stdout=writer) as engine:
        os.close(writer)
        for events in _events(reader):
            for line in [line for event in events for line in progress.heed(event)]:
                display.say(line, now_s=time.monotonic())
            if progress.running:
                progress.take_results(_results(stack, since_s=began_s))
            display.status(progress.status(), now_s=time.monotonic())
        display.close()
        os.close(reader)
    return engine.returncode, progress


def _events(reader: int) -> Iterator[list[dict[str, Any]]]:
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


def _event(line: bytes) -> dict[str, Any] | None:
    """An event of the engine; None for anything else that is printed."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _results(stack: str, *, since_s: float) -> dict[str, bool]:
    """What hosts have come to in the runs that are under way on this machine for the stack."""
    owner = f"ai_claim_owner: fleet/{stack}\n"
    results: dict[str, bool] = {}
    for path in Path(tempfile.gettempdir()).glob(_RUNS):
        with contextlib.suppress(OSError):  # the run has just ended
            is_ours = path.stat().st_mtime >= since_s and owner in (path.parent / "inventory.yml").read_text()
            results |= outcomes(path.read_text().splitlines()) if is_ours else {}
    return results


def main(argv: Sequence[str]) -> int:
    """Brings the stack up; the engine's own exit status."""
    if not argv or not re.fullmatch(r"[A-Za-z0-9][\w./-]*", argv[0]):
        print("usage: tools/up STACK [OPTIONS OF pulumi up]", file=sys.stderr)
        return 2
    stack, *options = argv
    words = ["pulumi", "up", "--yes", "--skip-preview", "--json", "--non-interactive", "--stack", stack]
    status, progress = follow([*words, *options], stack=stack.rpartition("/")[2], verb="up", out=sys.stderr)
    for error in progress.errors:
        print(error, file=sys.stderr)
    print(f"{stack}: {summary(progress.changes)}" if status == 0 else f"{stack}: up failed", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
