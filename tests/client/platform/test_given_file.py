"""Files that somebody else provides: whatever has their name is read to its end, or refused in time."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from ai_client.platform.given_file import read_given

AT_ONCE_S = 0.05
LONG_S = 20.0


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    """Whatever its size."""
    file = tmp_path / "file"
    for content in (b"", b"a", b"0123456789" * 100_000):
        file.write_bytes(content)
        assert read_given(file) == content


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    """`--config <(…)`: whoever writes may come later, and write in pieces."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("wb", buffering=0) as end:
            for _ in range(3):
                end.write(b"piece\n" * 20_000)

    writer = threading.Thread(target=write)
    writer.start()
    assert read_given(pipe, patience_s=LONG_S) == b"piece\n" * 60_000
    writer.join()


def test_a_pipe_that_nobody_writes_to_is_given_up(tmp_path: Path) -> None:
    """Before there is a writer, and where one is there and says nothing."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    before_s = time.monotonic()
    with pytest.raises(TimeoutError, match="nobody writes to its end"):
        read_given(pipe, patience_s=AT_ONCE_S)
    silent = os.open(pipe, os.O_RDWR)
    with pytest.raises(TimeoutError, match="nobody writes to its end"):
        read_given(pipe, patience_s=AT_ONCE_S)
    os.close(silent)
    assert time.monotonic() - before_s < LONG_S


def test_what_has_no_end_is_refused(tmp_path: Path) -> None:
    """A link to a device, or a file that somebody filled."""
    endless = tmp_path / "endless"
    endless.symlink_to("/dev/zero")
    with pytest.raises(OSError, match="it holds more than 1 MB"):
        read_given(endless, most_bytes=2**20)
    (tmp_path / "nothing").symlink_to("/dev/null")
    assert read_given(tmp_path / "nothing") == b""


def test_a_folder_and_a_link_that_leads_nowhere_are_errors(tmp_path: Path) -> None:
    """As of any file."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place, error in ((tmp_path, IsADirectoryError), (tmp_path / "no", FileNotFoundError)):
        with pytest.raises(error):
            read_given(place)
    with pytest.raises(OSError, match="Too many levels"):
        read_given(tmp_path / "loop")
