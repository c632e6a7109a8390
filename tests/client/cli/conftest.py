"""What all tests of commands share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Short, as homes are: a socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="cli-") as name:
        yield Path(name)
