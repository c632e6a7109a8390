"""A program that the engine interrupts ends without a word."""

import subprocess
import sys

from tests.infra.stacks import PROJECT

PROGRAM = """
import asyncio, os, signal, sys
from infra import interrupt
interrupt.end_quietly_on_interrupt()

async def wait_for_resources():
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
    await asyncio.get_running_loop().create_future()

asyncio.run(wait_for_resources())
"""


def test_an_interrupted_program_prints_no_traceback() -> None:
    """As the engine does it, while the program's event loop waits for resources."""
    argv = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_stacks_program_begins_with_it() -> None:
    """Before any resource is declared."""
    text = (PROJECT / "__main__.py").read_text()
    assert text.index("end_quietly_on_interrupt()") < text.index("\n    main()")
