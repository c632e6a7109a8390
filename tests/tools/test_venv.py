"""A venv of its own for a lock."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tools.artefact_checkout import ROOT, wheel_cache


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The script with one small lock beside it."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools/venv", tmp_path / "tools/venv")
    shutil.copy(ROOT / "requirements/bootstrap.txt", tmp_path / "requirements/small.txt")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    return tmp_path


def make(checkout: Path, name: str) -> subprocess.CompletedProcess[str]:
    cache = {"XDG_CACHE_HOME": str(checkout / "cache"), "UV_CACHE_DIR": wheel_cache()}
    return subprocess.run(
        [checkout / "tools/venv", name],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | cache,
        timeout=120,
    )


def test_it_prints_a_folder_with_what_the_lock_names(checkout):
    """The first call installs, the second prints the same folder and does nothing."""
    first, second = make(checkout, "small"), make(checkout, "small")

    assert first.stdout == second.stdout
    assert (first.stderr, second.stderr) == ("venv: installing requirements/small.txt\n", "")
    assert (Path(first.stdout.strip()) / "bin/uv").is_file()


def test_a_package_with_another_hash_is_not_installed(checkout):
    """The error names the lock, and the next call does not take the half-made venv."""
    lock = checkout / "requirements/small.txt"
    lock.write_text(re.sub("sha256:[0-9a-f]{8}", "sha256:00000000", lock.read_text()))

    for _ in range(2):
        result = make(checkout, "small")
        assert result.returncode == 1
        assert result.stdout == ""
        assert "venv: requirements/small.txt could not be installed" in result.stderr


def test_an_unknown_name_is_refused_with_where_to_look(checkout):
    """The error names the missing lock."""
    result = make(checkout, "unknown")
    assert result.returncode == 1
    assert f"{checkout}/requirements/unknown.txt is missing; name one of requirements/*.txt" in result.stderr
