"""The audit trail: a line for every call, and nothing removed or changed unnoticed."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ai_client.audit.chain import HEAD_NAME, CallTexts, verify
from ai_client.audit.trail import AuditTrail
from ai_client.contract.events import CacheMissed, EventStream
from tests.client.audit.audit_stage import (
    DAY_S,
    NOV_24,
    day_files,
    failed,
    lines,
    settled,
    turns,
)
from tests.client.hand_clock import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock(NOV_24)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def trail(folder: Path, clock: HandClock) -> Iterator[AuditTrail]:
    made = AuditTrail(folder, retention_days=90, clock=clock)
    yield made
    made.close()


async def write_one(trail: AuditTrail) -> None:
    trail(settled())
    trail.flush()


async def test_lines_wait_for_those_of_the_next_turn_as_long_as_some_come(
    trail: AuditTrail, folder: Path
) -> None:
    """One write for all of them; without end they don't wait."""
    trail(settled())
    for _ in range(5):
        trail(settled())
        await turns(1)
        assert day_files(folder) == []
    await turns(1)
    assert len(lines(folder)) == 1 + 6
    trail(settled())
    for _ in range(40):
        trail(settled())
        await turns(1)
    assert len(lines(folder)) > 7 + 15


async def test_a_call_is_one_line_with_its_facts(trail: AuditTrail, folder: Path) -> None:
    """Who, model, tokens, cost, status, latency, key fingerprint, tags; written in the next turn of the loop."""
    trail(settled())
    await asyncio.sleep(0)
    begin, call = lines(folder)
    assert begin["kind"] == "begin"
    assert {name: value for name, value in call.items() if name != "hash"} == {
        "seq": 2,
        "at": "2026-11-24T06:00:00.000+00:00",
        "kind": "call",
        "request_id": "r-1",
        "tenant": "team-a",
        "endpoint": "chat/completions",
        "model": "gpt-4.1",
        "asked_model": "gpt-4.1",
        "status": 200,
        "error": "",
        "input_tokens": 100,
        "output_tokens": 20,
        "cached_input_tokens": 50,
        "cost_usd": 0.00096,
        "billed_unknown": False,
        "cached": False,
        "stream": False,
        "attempts": 1,
        "latency_ms": 1234.5,
        "key": "0123456789ab",
        "tags": {"team": "core"},
    }


async def test_a_failed_call_has_its_line_too_and_other_events_have_none(
    trail: AuditTrail, folder: Path
) -> None:
    """The last event of a request is one line, whatever went before it."""
    events = EventStream()
    events.subscribe(trail)
    missed = CacheMissed(at=NOV_24, request_id="r-f", tenant="t", model="m", endpoint="e")
    events.emit(missed)
    events.emit(failed())
    trail.flush()
    (_, call) = lines(folder)
    assert (call["error"], call["status"], call["billed_unknown"]) == ("ServerError", 503, True)
    assert verify(folder).problems == ()


@given(
    st.text(),
    st.floats(min_value=0, max_value=4e9),
    st.floats(min_value=0, max_value=1e6),
    st.none() | st.floats(min_value=0, max_value=1e6),
    st.dictionaries(st.text(), st.text(), max_size=3),
)
def test_whatever_the_facts_are_a_line_is_json_and_says_them(
    text: str, at_s: float, latency_s: float, cost_usd: float | None, tags: dict[str, str]
) -> None:
    """Names with quotes, newlines and anything else; moments of any fraction."""
    event = replace(
        settled(), at=at_s, tenant=text, model=text, latency_s=latency_s, cost_usd=cost_usd, cost_tags=tags
    )
    line = json.loads(CallTexts().of(event))
    assert (line["tenant"], line["model"], line["cost_usd"], line["tags"]) == (text, text, cost_usd, tags)
    assert abs(datetime.fromisoformat(line["at"]).timestamp() - at_s) <= 0.0011


def test_half_an_emoji_in_a_name_is_kept_too() -> None:
    """A caller may name any model: an escaped lone surrogate is JSON."""
    line = json.loads(CallTexts().of(replace(settled(), model="\ud83d", cost_tags={"team": "core"})))
    assert (line["model"], line["tags"]) == ("\ud83d", {"team": "core"})


async def test_each_day_has_its_file_and_the_chain_goes_on(
    trail: AuditTrail, folder: Path, clock: HandClock
) -> None:
    """Rotation at midnight UTC; the first line of a file repeats the last hash of the one before."""
    for day in range(3):
        trail(settled(day))
        trail.flush()
        clock.now_s += DAY_S
    files = day_files(folder)
    assert [file.name for file in files] == [f"audit-2026-11-{day}.jsonl" for day in (24, 25, 26)]
    report = verify(folder)
    assert (report.lines, report.problems) == (6, ())


async def test_files_older_than_the_retention_are_deleted_and_the_rest_verifies(
    trail: AuditTrail, folder: Path, clock: HandClock
) -> None:
    """The oldest file that is left is where the check begins."""
    for day in range(95):
        trail(settled(day))
        trail.flush()
        clock.now_s += DAY_S
    assert len(day_files(folder)) == 91
    report = verify(folder)
    assert (report.first_file, report.problems) == ("audit-2026-11-28.jsonl", ())


async def test_a_clock_set_back_goes_on_in_the_newest_file(
    trail: AuditTrail, folder: Path, clock: HandClock
) -> None:
    """So the files' order stays the chain's."""
    trail(settled(1))
    trail.flush()
    clock.now_s -= 2 * DAY_S
    trail(settled(2))
    trail.flush()
    assert len(day_files(folder)) == 1
    assert verify(folder).problems == ()


def change_tokens(content: bytes) -> bytes:
    return content.replace(b'"request_id":"r-3"', b'"request_id":"r-9"')


def drop_line(content: bytes) -> bytes:
    return b"".join(line for line in content.splitlines(keepends=True) if b'"r-3"' not in line)


def double_line(content: bytes) -> bytes:
    return b"".join(line * (1 + (b'"r-3"' in line)) for line in content.splitlines(keepends=True))


def swap_lines(content: bytes) -> bytes:
    cut = content.splitlines(keepends=True)
    cut[3], cut[4] = cut[4], cut[3]
    return b"".join(cut)


def cut_tail(content: bytes) -> bytes:
    return b"".join(content.splitlines(keepends=True)[:-2])


def cut_begin(content: bytes) -> bytes:
    return b"".join(content.splitlines(keepends=True)[1:])


def add_rubbish(content: bytes) -> bytes:
    return content + b"rubbish\n"


@pytest.mark.parametrize(
    "tamper", [change_tokens, drop_line, double_line, swap_lines, cut_tail, cut_begin, add_rubbish]
)
async def test_whatever_is_done_to_the_lines_is_found(
    trail: AuditTrail, folder: Path, tamper: Callable[[bytes], bytes]
) -> None:
    """Changed, removed, doubled, swapped, cut off, put in."""
    for number in range(1, 7):
        trail(settled(number))
    trail.flush()
    (file,) = day_files(folder)
    content = file.read_bytes()
    assert verify(folder).problems == ()
    tampered = tamper(content)
    assert tampered != content
    file.write_bytes(tampered)
    problems = verify(folder).problems
    assert problems
    assert all(problem.file == file.name for problem in problems)


async def test_one_changed_line_is_named_once(trail: AuditTrail, folder: Path) -> None:
    """The check goes on behind it, so that a second change is found too."""
    for number in range(1, 7):
        trail(settled(number))
    trail.flush()
    (file,) = day_files(folder)
    file.write_bytes(change_tokens(file.read_bytes()).replace(b'"request_id":"r-5"', b'"request_id":"r-8"'))
    assert [(problem.line, "changed" in problem.reason) for problem in verify(folder).problems] == [
        (4, True),
        (6, True),
    ]


async def test_a_missing_day_is_found(trail: AuditTrail, folder: Path, clock: HandClock) -> None:
    """Between two others, and at the end."""
    for day in range(4):
        trail(settled(day))
        trail.flush()
        clock.now_s += DAY_S
    day_files(folder)[1].unlink()
    (problem,) = verify(folder).problems
    assert (problem.file, problem.line) == ("audit-2026-11-26.jsonl", 1)
    day_files(folder)[-1].unlink()
    assert len(verify(folder).problems) == 2


async def test_a_missing_head_is_a_problem(trail: AuditTrail, folder: Path) -> None:
    """Without it, lines cut off the end would go unnoticed."""
    trail(settled())
    trail.flush()
    (folder / HEAD_NAME).unlink()
    assert [problem.file for problem in verify(folder).problems] == [HEAD_NAME]


async def test_a_torn_line_of_a_killed_process_is_cut_off_and_the_chain_goes_on(
    trail: AuditTrail, folder: Path, clock: HandClock
) -> None:
    """And whole lines that it had no time to enter in the head are kept."""
    trail(settled(1))
    trail.flush()
    head = (folder / HEAD_NAME).read_bytes()
    trail(settled(2))
    trail.flush()
    (folder / HEAD_NAME).write_bytes(head)
    with day_files(folder)[0].open("ab") as file:
        file.write(b'{"seq":4,"at":"2026')
    trail(settled(3))
    trail.flush()
    assert [line.get("request_id") for line in lines(folder)] == [None, "r-1", "r-2", "r-3"]
    assert verify(folder).problems == ()


async def test_a_day_begun_by_a_killed_process_goes_on(
    trail: AuditTrail, folder: Path, clock: HandClock
) -> None:
    """Its first lines are there, but the head still names the day before."""
    trail(settled(1))
    trail.flush()
    head = (folder / HEAD_NAME).read_bytes()
    clock.now_s += DAY_S
    trail(settled(2))
    trail.flush()
    (folder / HEAD_NAME).write_bytes(head)
    trail(settled(3))
    trail.flush()
    assert verify(folder).problems == ()
    assert len(lines(folder)) == 5


async def test_a_file_deleted_under_a_running_process_is_begun_anew_and_found(
    trail: AuditTrail, folder: Path
) -> None:
    """No line goes into a file that has no name any more."""
    trail(settled(1))
    trail.flush()
    day_files(folder)[0].unlink()
    trail(settled(2))
    trail.flush()
    assert [line.get("request_id") for line in lines(folder)] == [None, "r-2"]


def test_the_files_can_be_read_by_a_group_and_by_nobody_else(trail: AuditTrail, folder: Path) -> None:
    """0640: an auditor's group, no other user."""
    asyncio.run(write_one(trail))
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o640}
