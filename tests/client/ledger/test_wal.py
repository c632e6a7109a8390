"""The ledger's write-ahead log under commits that never pause."""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import pytest

from ai_client.ledger import upkeep
from ai_client.ledger.schema import open_ledger
from ai_client.platform.sqlite_file import Transaction

COMMITS = 20_000
CHECKPOINTS = 10


def _commit_without_pause(path: Path, due: threading.Semaphore) -> None:
    db = open_ledger(path, busy_timeout_s=10)
    for number in range(COMMITS):
        with Transaction(db):
            db.execute("UPDATE meta SET value = ? WHERE name = 'other'", (number,))
        if number % (COMMITS // CHECKPOINTS) == 0:
            due.release()
    db.close()


def test_the_log_stays_short_though_commits_never_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint beside a writer never finds the log at its end; without an end it would fill the disk."""
    monkeypatch.setattr(upkeep, "_RESTART_FRAMES", 1_000)
    path = tmp_path / "ledger.sqlite"
    db = open_ledger(path, busy_timeout_s=10)
    db.execute("INSERT INTO meta(name, value) VALUES('other', '')")
    due = threading.Semaphore(0)
    writer = threading.Thread(target=_commit_without_pause, args=[path, due])
    writer.start()
    for _ in range(CHECKPOINTS):
        assert due.acquire(timeout=60)
        upkeep.checkpoint(db)
    writer.join()
    # Of the log's header: how often it was begun anew.
    (begun,) = struct.unpack(">I", path.with_name("ledger.sqlite-wal").read_bytes()[12:16])
    db.close()
    assert begun >= 2
