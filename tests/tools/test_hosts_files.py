"""Records and locks on a real file system."""

import multiprocessing
import os
import stat
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tools.hosts.errors import HostsError
from tools.hosts.files import locked, read_record, write_record, write_text


def quiet(_text: str) -> None:
    """Nobody listens."""


def hold(path: Path, pipe: Connection, shared: bool) -> None:
    """Holds a lock until told to let go."""
    with locked(path, shared=shared, say=quiet):
        pipe.send("held")
        pipe.recv()


@pytest.fixture
def held_by_another(tmp_path):
    """Another process that holds `lock`, exclusively or shared, until the test ends."""
    processes = []
    context = multiprocessing.get_context("spawn")

    def start(*, shared: bool) -> Path:
        ours, theirs = context.Pipe()
        process = context.Process(target=hold, args=(tmp_path / "lock", theirs, shared))
        process.start()
        processes.append((process, ours))
        assert ours.poll(20)
        assert ours.recv() == "held"
        return tmp_path / "lock"

    yield start
    for process, pipe in processes:
        pipe.send("go")
        process.join(20)
        assert process.exitcode == 0


def test_a_record_comes_back_as_it_was_written(tmp_path):
    """And none where there is none."""
    assert read_record(tmp_path / "r") is None
    write_record(tmp_path / "r", {"a": [1, "b"], "c": None})
    assert read_record(tmp_path / "r") == {"a": [1, "b"], "c": None}


def test_a_write_cut_short_leaves_the_old_record(tmp_path):
    """What lies beside it from a crash is overwritten, never read."""
    write_record(tmp_path / "r", {"a": 1})
    (tmp_path / ".r.new").write_text('{"a": ')
    assert read_record(tmp_path / "r") == {"a": 1}
    write_record(tmp_path / "r", {"a": 2})
    assert read_record(tmp_path / "r") == {"a": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_a_damaged_record_is_named(tmp_path):
    """With the remedy."""
    (tmp_path / "r").write_text("{")
    with pytest.raises(HostsError, match=r"is damaged .*; purge the fleet"):
        read_record(tmp_path / "r")


def test_a_file_has_its_mode_whatever_the_umask(tmp_path):
    """Keys are private from the first byte, files for others are readable."""
    old = os.umask(0o077)
    try:
        write_text(tmp_path / "open", "x", mode=0o644)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o644


def test_a_lock_that_another_holds_is_waited_for_and_then_named(held_by_another):
    """The wait is told, the end of patience says what to do."""
    lock = held_by_another(shared=False)
    said: list[str] = []
    with (
        pytest.raises(HostsError, match=r"another run has held it for 0 s; wait for that run or end it"),
        locked(lock, timeout_s=0.2, say=said.append),
    ):
        pytest.fail("the lock was taken twice")
    assert said == [f"waiting for another run that holds {lock}"]


def test_shared_locks_go_together_and_keep_an_exclusive_one_out(held_by_another):
    """Hosts of one fleet are made side by side, but not while it is purged."""
    lock = held_by_another(shared=True)
    with locked(lock, shared=True, timeout_s=0, say=quiet):
        pass
    with pytest.raises(HostsError, match="another run"), locked(lock, timeout_s=0, say=quiet):
        pytest.fail("an exclusive lock beside a shared one")


def test_a_lock_file_may_be_removed_by_its_holder(tmp_path):
    """The next one makes it anew, and two are never held on one name."""
    lock = tmp_path / "lock"
    with locked(lock, say=quiet):
        lock.unlink()
        with locked(lock, timeout_s=0, say=quiet):
            assert lock.exists()
