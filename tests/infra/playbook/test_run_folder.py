import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from infra.playbook.run_folder import scratch_folder

HOLD = "from infra.playbook.run_folder import scratch_folder\n"
HOLD += "with scratch_folder() as f:\n    print(f, flush=True)\n    input()"


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of this test alone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_the_folder_is_private_and_goes_with_the_run(parent: Path) -> None:
    """Nobody else may look, and nothing stays."""
    with scratch_folder() as folder:
        assert folder.parent == parent
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


def test_the_folder_of_a_killed_run_is_swept_and_that_of_a_live_one_is_kept(parent: Path) -> None:
    """SIGKILL leaves the folder; the next run removes it, and no other's."""
    holders = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    killed, alive = holders
    folders = [Path(holder.stdout.readline().strip()) for holder in holders if holder.stdout]
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    with scratch_folder():
        assert not folders[0].exists()
        assert folders[1].exists()
    alive.communicate("\n", timeout=30)
    assert list(parent.iterdir()) == []
