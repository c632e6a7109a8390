"""Where stored things lie: remembered over restarts, whatever happens to the file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ai_client.contract.events import Event, EventStream, StoreDegraded
from ai_client.contract.stores import Home
from ai_client.platform.clock import ManualClock
from ai_client.stored.homes_file import KEPT_S, HomesFile

HERE = Home(upstream="", key_fingerprint="0123456789ab", tenant="web")
THERE = Home(upstream="azure", key_fingerprint="ba9876543210", tenant="batch")


@pytest.fixture
def seen() -> list[Event]:
    """What is told of trouble."""
    return []


@pytest.fixture
def clock() -> ManualClock:
    """Set by hand."""
    return ManualClock()


def opened(folder: Path, clock: ManualClock, seen: list[Event]) -> HomesFile:
    """The file of a folder, as each process of the service opens it."""
    events = EventStream()
    events.subscribe(seen.append)
    return HomesFile(folder / "homes.sqlite", clock=clock, events=events)


def test_a_home_is_found_after_a_restart_and_by_another_process(
    tmp_path: Path, clock: ManualClock, seen: list[Event]
) -> None:
    """The last one counts; what was never noted has none."""
    first, beside = opened(tmp_path, clock, seen), opened(tmp_path, clock, seen)
    first.note("resp_1", HERE)
    beside.note("resp_1", THERE)
    assert first.find("resp_1") == THERE
    first.close()
    first.close()
    later = opened(tmp_path, clock, seen)
    assert (later.find("resp_1"), later.find("resp_2")) == (THERE, None)
    later.forget("resp_1")
    assert beside.find("resp_1") is None
    assert seen == []


def test_what_was_made_too_long_ago_is_swept(tmp_path: Path, clock: ManualClock, seen: list[Event]) -> None:
    """At the first note of a process, and then now and again."""
    opened(tmp_path, clock, seen).note("resp_old", HERE)
    clock.advance(KEPT_S + 1)
    homes = opened(tmp_path, clock, seen)
    assert homes.find("resp_old") == HERE
    homes.note("resp_new", HERE)
    assert (homes.find("resp_old"), homes.find("resp_new")) == (None, HERE)


@pytest.mark.parametrize("damage", [b"no database at all, and long enough to be read as one" * 100, b""])
def test_a_damaged_file_is_put_aside(
    tmp_path: Path, clock: ManualClock, seen: list[Event], damage: bytes
) -> None:
    """Told once; an empty file is a new one."""
    (tmp_path / "homes.sqlite").write_bytes(damage)
    homes = opened(tmp_path, clock, seen)
    homes.note("resp_1", HERE)
    homes.close()
    assert opened(tmp_path, clock, seen).find("resp_1") == HERE
    assert [type(event) for event in seen] == [StoreDegraded] * bool(damage)
    assert (tmp_path / "homes.damaged").exists() is bool(damage)


def test_without_a_file_this_process_remembers(tmp_path: Path, clock: ManualClock, seen: list[Event]) -> None:
    """The folder is missing, or the file is held by another for too long."""
    homeless = opened(tmp_path / "missing", clock, seen)
    homeless.note("resp_1", HERE)
    assert homeless.find("resp_1") == HERE
    homeless.forget("resp_1")
    assert homeless.find("resp_1") is None
    homes = opened(tmp_path, clock, seen)
    with sqlite3.connect(tmp_path / "homes.sqlite", isolation_level=None) as holder:
        holder.execute("BEGIN IMMEDIATE")
        homes.note("resp_2", THERE)
        holder.execute("ROLLBACK")
    assert homes.find("resp_2") == THERE
    assert {event.store for event in seen if isinstance(event, StoreDegraded)} == {"homes"}


def test_what_its_making_was_booked_under_lies_beside_it(
    tmp_path: Path, clock: ManualClock, seen: list[Event]
) -> None:
    """Found after a restart, gone with it, and never that of another thing by the same name; a file of a release that
    knew nothing of it is taken as it is."""
    with sqlite3.connect(tmp_path / "homes.sqlite") as db:
        db.execute(
            "CREATE TABLE home (stored_id TEXT PRIMARY KEY, upstream TEXT NOT NULL, key TEXT NOT NULL,"
            " tenant TEXT NOT NULL, at_s REAL NOT NULL) WITHOUT ROWID"
        )
        db.execute("INSERT INTO home VALUES ('resp_0', '', '0123456789ab', 'web', ?)", (clock.wall(),))
    db.close()
    booked = Home(upstream="", key_fingerprint="k", tenant="web", entry=7, request_id="r", model="gpt-4.1")
    homes = opened(tmp_path, clock, seen)
    homes.note("resp_1", booked)
    homes.close()
    later = opened(tmp_path, clock, seen)
    assert (later.find("resp_0"), later.find("resp_1")) == (HERE, booked)
    later.note("resp_1", THERE)
    assert later.find("resp_1") == THERE
    later.note("resp_2", booked)
    later.forget("resp_2")
    later.note("resp_2", HERE)
    assert later.find("resp_2") == HERE
    assert seen == []
    later.close()
