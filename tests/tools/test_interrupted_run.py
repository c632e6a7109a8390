"""A run of the tests that is ended in its middle: the process that shares them out removes what the others booted."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tools.hosts_control import FOLDER, ROOT, Control, leftovers

pytestmark = [pytest.mark.hosts, pytest.mark.slow]

FLEET, LINK_OCTET = "ended", 230
# What its worker runs, which does not notice that it shall end.
HANGS = f"""
import signal, time
from pathlib import Path
from tests.tools.hosts_control import own_fleet

def test_hangs():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with own_fleet({FLEET!r}, {LINK_OCTET}) as control:
        control.ask("network", "up", order=control.network_order)
        Path("UP").touch()
        while True:
            time.sleep(1)
"""


def test_nothing_is_left_where_a_worker_is_ended_before_it_can_clean_up(tmp_path: Path) -> None:
    """A signal reaches the first process alone, as when CI or `timeout` ends it."""
    up, tests = tmp_path / "up", tmp_path / "tests" / "made" / "test_it.py"
    tests.parent.mkdir(parents=True)
    tests.write_text(HANGS.replace("UP", str(up)))
    own = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "AI_CLIENT_FLEET_TESTS"))}
    words = ["-q", "-n", "1", "-p", "no:cacheprovider", "-p", "tests.conftest", "--rootdir", str(tmp_path)]
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", *words, "-c", str(ROOT / "pyproject.toml"), str(tests)],
        cwd=ROOT,
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    control = Control(FOLDER / f"{FLEET}-{LINK_OCTET}", FLEET, LINK_OCTET)
    try:
        while not up.exists():
            assert run.poll() is None, run.communicate()
            time.sleep(0.1)
        assert leftovers(control) != []
        run.terminate()
        said, _ = run.communicate(timeout=120)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 2, said
    assert leftovers(control) == []
