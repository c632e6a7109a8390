import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from infra.playbook import supervise

TREE = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import os, time; os.setsid(); time.sleep(60)"])
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
time.sleep(60)
"""


def wait_until(met: Callable[[], bool], *, within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not met():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_the_exit_status_of_the_program_is_passed_on(tmp_path: Path) -> None:
    """A guarded program that ends by itself ends as if it were not guarded, and its folder stays."""
    argv = [
        sys.executable,
        "-I",
        "-S",
        supervise.__file__,
        str(tmp_path),
        sys.executable,
        "-c",
        "raise SystemExit(7)",
    ]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as program:
        assert program.wait(30) == 7
    assert tmp_path.exists()


def test_when_the_starter_is_killed_the_whole_tree_ends_and_the_folder_goes(tmp_path: Path) -> None:
    """SIGKILL of the starter leaves no process, not even one in a session of its own, and no file."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    pids = tmp_path / "pids"
    starter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys\n"
            "p = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, start_new_session=True)\np.wait()",
            *[sys.executable, "-I", "-S", supervise.__file__, str(scratch)],
            *[sys.executable, "-c", TREE, str(pids)],
        ]
    )
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    program, detached = map(int, pids.read_text().split())
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    wait_until(lambda: not is_alive(program) and not is_alive(detached) and not scratch.exists())
