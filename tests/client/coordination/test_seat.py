"""A host's place in a shared quota, over restarts: it never uses what others may still have of it."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ai_client.configure.coordination import LEAVING_MARK, MARK, note_joined, take_seat
from ai_client.coordination.lease import Mode
from ai_client.coordination.protocol import Terms
from ai_client.settings import loads
from ai_client.settings.sections import CoordinationSettings, Settings

_SHARE = 100
_TEXT = f"[performance]\nrate_limit = {_SHARE}\n"
_HERE = CoordinationSettings(endpoint="redis://one:6379", account="main", host="h")


def _settings(coordination: CoordinationSettings | None) -> Settings:
    alone = loads(_TEXT, path="conf")
    return alone if coordination is None else replace(alone, coordination=coordination)


def _mode(settings: Settings, state: Path) -> tuple[Mode, int] | None:
    seat = take_seat(settings, state)
    if seat is None:
        return None
    now = seat.window.now()
    return seat.window.mode(now), seat.window.requests.limit(now)


def test_a_host_that_begins_to_share_goes_on_with_its_share(tmp_path: Path) -> None:
    assert _mode(_settings(_HERE), tmp_path) == (Mode.STATIC, _SHARE)


def test_the_next_process_asks_before_it_sends(tmp_path: Path) -> None:
    take_seat(_settings(_HERE), tmp_path)
    assert _mode(_settings(_HERE), tmp_path) == (Mode.EXPIRED, 0)


@pytest.mark.parametrize(
    "after",
    [
        None,
        replace(_HERE, endpoint="redis://two:6379"),
        replace(_HERE, account="other"),
        replace(_HERE, host="renamed"),
    ],
    ids=["its own share", "another engine", "another account", "another name"],
)
def test_a_host_that_leaves_its_books_has_its_floor_until_what_it_lent_is_back(
    tmp_path: Path, after: CoordinationSettings | None
) -> None:
    """Wherever it goes, and however often it starts meanwhile."""
    take_seat(_settings(_HERE), tmp_path)
    for _ in range(2):
        seat = take_seat(_settings(after), tmp_path)
        assert seat is not None
        assert _mode(_settings(after), tmp_path) == (Mode.FLOOR, _SHARE // 50)
        if after is None:
            assert seat.asks_in_s is None
        else:
            assert seat.asks_in_s == pytest.approx(Terms().static_ms / 1000, abs=5)
    past_s = time.time() - Terms().static_ms / 1000 - 1
    os.utime(tmp_path / LEAVING_MARK, (past_s, past_s))
    assert _mode(_settings(after), tmp_path) == (None if after is None else (Mode.STATIC, _SHARE))
    assert not (tmp_path / LEAVING_MARK).exists()


def test_a_host_that_waited_is_in_the_books_from_then_on(tmp_path: Path) -> None:
    there = _settings(replace(_HERE, endpoint="redis://two:6379"))
    take_seat(_settings(_HERE), tmp_path)
    take_seat(there, tmp_path)
    note_joined(there, tmp_path)
    assert _mode(there, tmp_path) == (Mode.EXPIRED, 0)


def test_a_mark_of_a_release_before_names_no_books(tmp_path: Path) -> None:
    """It is of those that are declared, as it was then."""
    (tmp_path / MARK).touch()
    assert _mode(_settings(_HERE), tmp_path) == (Mode.EXPIRED, 0)


def test_a_wall_clock_that_jumps_back_ends_no_wait(tmp_path: Path) -> None:
    take_seat(_settings(_HERE), tmp_path)
    take_seat(_settings(None), tmp_path)
    future_s = time.time() + 3600
    os.utime(tmp_path / LEAVING_MARK, (future_s, future_s))
    seat = take_seat(_settings(None), tmp_path)
    assert seat is not None
    assert _mode(_settings(None), tmp_path) == (Mode.FLOOR, _SHARE // 50)
