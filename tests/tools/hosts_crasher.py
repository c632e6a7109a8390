"""Runs `tools.hosts` and kills it before a given step: a program started, a record put in place, a process ended."""

import os
import runpy
import signal
import sys
import threading

STEPS = ("subprocess.Popen", "os.rename", "os.rmdir", "os.kill")


def run_until(at: int) -> None:
    """Counts steps through the interpreter's audit events, so that the tool itself knows nothing of this."""
    seen = 0

    def hook(event: str, _arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in STEPS:
            return
        seen += 1
        if seen == at:
            os.write(2, f"steps: {seen}".encode())
            # Not os.kill: that is a step itself.
            signal.pthread_kill(threading.get_ident(), signal.SIGKILL)

    sys.addaudithook(hook)
    try:
        runpy.run_module("tools.hosts", run_name="__main__", alter_sys=True)
    finally:
        os.write(2, f"steps: {seen}".encode())


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    last_step = int(sys.argv.pop(1))
    run_until(last_step)
