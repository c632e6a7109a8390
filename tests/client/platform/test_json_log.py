"""JSON logs: a line an event, a file a day, old ones removed, no secret."""

from __future__ import annotations

import json
import logging
import multiprocessing
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_client.platform import json_log
from tests.client.hand_clock import HandClock

DAY_S = 86_400.0
START_S = 1_780_000_000.0


@pytest.fixture
def restored_root() -> Iterator[None]:
    """Gives the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = handlers, level


def daily(folder: Path, clock: HandClock, retention_days: int = 30) -> json_log.DailyFile:
    """A file of a test."""
    return json_log.DailyFile(folder, stem="ai-client", retention_days=retention_days, wall_clock=clock)


def test_each_day_has_its_file(tmp_path: Path) -> None:
    """Rotation is another name, at midnight UTC."""
    clock = HandClock(START_S)
    file = daily(tmp_path, clock)
    file.write(b"one\n")
    clock.now_s += DAY_S
    file.write(b"two\n")
    file.close()
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [b"one\n", b"two\n"]


def test_a_clock_that_is_set_back_goes_back_to_that_days_file(tmp_path: Path) -> None:
    """A line lies where its date says."""
    clock = HandClock(START_S)
    file = daily(tmp_path, clock)
    file.write(b"one\n")
    clock.now_s -= 3 * DAY_S
    file.write(b"earlier\n")
    file.close()
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [b"earlier\n", b"one\n"]


def test_files_past_retention_are_removed_and_no_others(tmp_path: Path) -> None:
    """30 days, and only this stem's day files."""
    for name in ("ai-client-2000-01-01.jsonl", "audit-2000-01-01.jsonl", "ai-client-notes.jsonl"):
        (tmp_path / name).touch()
    file = daily(tmp_path, HandClock(START_S))
    file.write(b"one\n")
    file.close()
    names = {path.name for path in tmp_path.iterdir()}
    assert "ai-client-2000-01-01.jsonl" not in names
    assert {"audit-2000-01-01.jsonl", "ai-client-notes.jsonl"} < names


def write_many(folder: Path, letter: bytes) -> None:
    """What each process of the next test does."""
    file = daily(folder, HandClock(START_S))
    for _ in range(2_000):
        file.write(letter * 200 + b"\n")
    file.close()


def test_lines_of_several_processes_never_mix(tmp_path: Path) -> None:
    """Each line is one append."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_many, args=(tmp_path, letter)) for letter in (b"a", b"b", b"c")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    [path] = tmp_path.iterdir()
    lines = path.read_bytes().splitlines()
    assert len(lines) == 6_000
    assert {bytes(set(line)) for line in lines} == {b"a", b"b", b"c"}


@pytest.mark.usefixtures("restored_root")
def test_an_event_is_one_json_line_with_its_facts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Newlines in a text don't break a line; warnings reach stderr too."""
    handler = json_log.start(folder=tmp_path, level="INFO", retention_days=30, wall_clock=HandClock(START_S))
    logging.getLogger("ai_client.test").warning(
        "slow_request", extra=json_log.fields({"model": "a\nb", "ms": 3})
    )
    logging.getLogger("ai_client.test").debug("not this")
    handler.close()
    [path] = tmp_path.iterdir()
    [line] = path.read_text().splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["level"], entry["model"], entry["ms"]) == (
        "slow_request",
        "WARNING",
        "a\nb",
        3,
    )
    assert "slow_request" in capsys.readouterr().err


@pytest.mark.usefixtures("restored_root")
def test_a_key_never_gets_into_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever library says it, in a message, a fact or a trace."""
    handler = json_log.start(folder=tmp_path, level="INFO", retention_days=30, wall_clock=HandClock(START_S))
    secret = "hs_test_0123456789abcdef"
    logger = logging.getLogger("some.library")
    try:
        int(f"Bearer {secret}")
    except ValueError:
        logger.exception("failed with %s", secret, extra=json_log.fields({"header": f"Bearer {secret}"}))
    handler.close()
    [path] = tmp_path.iterdir()
    assert secret not in path.read_text()
    assert secret not in capsys.readouterr().err


@pytest.mark.usefixtures("restored_root")
def test_a_folder_that_vanishes_does_not_stop_the_service(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line is lost, and stderr says so."""
    handler = json_log.start(
        folder=tmp_path / "gone", level="INFO", retention_days=30, wall_clock=HandClock(START_S)
    )
    logging.getLogger("ai_client.test").info("hello")
    handler.close()
    assert "log line lost: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["deleted", "renamed"])
def test_a_file_that_is_taken_away_is_made_anew(tmp_path: Path, how: str) -> None:
    """By hand or by logrotate: what comes after is not lost in a file without a name."""
    clock = HandClock(START_S)
    file = daily(tmp_path, clock)
    file.write(b"one\n")
    [path] = tmp_path.iterdir()
    if how == "deleted":
        path.unlink()
    else:
        path.rename(tmp_path / "rotated")
    clock.now_s += json_log.LOOK_S
    file.write(b"two\n")
    file.close()
    assert path.read_bytes() == b"two\n"


def test_a_line_that_a_full_disk_took_in_part_spoils_no_other(tmp_path: Path) -> None:
    """Its write is an error, and what is written when there is room again stands on lines of its own."""
    file = daily(tmp_path, HandClock(START_S))
    file.write(b'{"line":1}\n')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (15, limits[1]))
    try:
        for _ in range(2):
            with pytest.raises(OSError, match=r"No space left|File too large"):
                file.write(b'{"line":2}\n')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    file.write(b'{"line":3}\n')
    file.write(b'{"line":4}\n')
    file.close()
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == b'{"line":1}\n{"li\n{"line":3}\n{"line":4}\n'
