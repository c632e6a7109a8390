"""Runs a program and outlives nobody: when its own starter dies, it ends the program and cleans up.

Started as `python -I -S supervise.py SCRATCH PROGRAM ARGS…` in a session of its own, with the read end of a pipe on
standard input. The starter holds the write end: end of file there means that it is gone, however it went.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_GRACE_S = 5.0
_PR_SET_CHILD_SUBREAPER = 36


def main(scratch: str, argv: list[str]) -> int:
    """Exit status of the program; or 143 where the starter died first, with the folder SCRATCH removed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Workers detach into sessions of their own; as their reaper, this process still finds them.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, preexec_fn=_default_signals) as program:  # noqa: PLW1509
        exited = os.pidfd_open(program.pid)
        ready, _, _ = select.select([exited, sys.stdin], [], [])
        if exited in ready:
            return program.wait()
        _end(program)
    shutil.rmtree(scratch, ignore_errors=True)
    return 143


def _default_signals() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(program: "subprocess.Popen[bytes]") -> None:
    """Asks the program to end, waits, then ends it and everything that it started."""
    program.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        program.wait(_GRACE_S)
    deadline = time.monotonic() + _GRACE_S
    while (left := _descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    todo = [root]
    while todo:
        todo += (below := children.get(todo.pop(), []))
        found += below
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
