"""What every command does alike: Ctrl-C, a reader that leaves, a full disk, missing streams, odd encodings."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

EXIT_FAILED = 1
# What a shell shows for a program ended by SIGINT or SIGPIPE.
EXIT_INTERRUPTED = 130
EXIT_READER_GONE = 141


class OutputFailedError(Exception):
    """Standard output can't be written; not an OSError, as commands handle those of files and sockets themselves."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"the output can't be written: {cause.strerror}; free space or name another place")
        self.is_reader_gone = isinstance(cause, BrokenPipeError)


class _StandardOutput(io.TextIOWrapper):
    """Standard output whose failures can't be mistaken for those of anything else."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as exc:
            raise OutputFailedError(exc) from exc

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as exc:
            raise OutputFailedError(exc) from exc


def guarded(run: Callable[[], int]) -> int:
    """Run a command; the exit code, also where it was interrupted or nobody reads its output any more."""
    _prepare_streams()
    try:
        try:
            code = run()
        except SystemExit as exc:
            # argparse's, behind `--help` and mistakes: what it printed may still be in the buffer.
            code = exc.code if isinstance(exc.code, int) else 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except OutputFailedError as exc:
        if not exc.is_reader_gone:
            print(exc, file=sys.stderr)
        code = EXIT_READER_GONE if exc.is_reader_gone else EXIT_FAILED
        _discard_output()
    return code


def _prepare_streams() -> None:
    """A closed stream (`>&-`) is None in Python, and its number would go to the next file or socket opened."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115  open until the end
            setattr(sys, name, stream)
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper) and not isinstance(out, _StandardOutput):
        line_buffering, encoding = out.line_buffering, out.encoding
        sys.stdout = _StandardOutput(
            out.detach(), encoding, "backslashreplace", line_buffering=line_buffering
        )
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Python flushes standard output at its end, which must not fail a second time."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, sys.stdout.fileno())
    os.close(descriptor)
