"""What somebody may do to a trail: each is seen, without or with an anchor; what the service does itself is not."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ai_client.audit import chain
from ai_client.audit.chain import HEAD_NAME, Anchor, chained, format_head, parse_anchor, parse_head, verify
from ai_client.audit.trail import AuditTrail
from tests.client.audit.audit_stage import NOV_24, day_files, settled
from tests.client.hand_clock import HandClock

Change = Callable[[list[bytes]], list[bytes]]
CALLS = 10


@pytest.fixture
def anchors() -> list[Anchor]:
    return []


@pytest.fixture
async def folder(tmp_path: Path, anchors: list[Anchor]) -> Path:
    trail = AuditTrail(
        tmp_path / "audit", retention_days=90, clock=HandClock(NOV_24), on_anchor=anchors.append
    )
    for number in range(CALLS):
        trail(settled(number))
    trail.flush()
    trail.close()
    return tmp_path / "audit"


def verify_by_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ai_client.cli", "audit", "verify", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def rewritten(lines: list[bytes], *, start: int) -> list[bytes]:
    """All lines from one on hashed anew, as somebody does who knows how."""
    made, previous = lines[:start], chain._parse(lines[start - 1])[2] if start else chain.NO_HASH  # type: ignore[index]
    for line in lines[start:]:
        text = chain._parse(line)[1]  # type: ignore[index]
        seq = json.loads(text)["seq"]
        renewed, previous = chained(re.sub(rb'^\{"seq":\d+,', b"{", text), seq=seq, previous=previous)
        made.append(renewed)
    return made


def edited(lines: list[bytes], index: int) -> list[bytes]:
    changed = lines[index].replace(b'"tenant":"', b'"tenant":"x')
    assert changed != lines[index]
    return [*lines[:index], changed, *lines[index + 1 :]]


def forged_end(lines: list[bytes]) -> list[bytes]:
    """One more, well chained."""
    _, text, digest, _ = chain._parse(lines[-1])  # type: ignore[misc]
    more, _ = chained(re.sub(rb'^\{"seq":\d+,', b"{", text), seq=len(lines) + 1, previous=digest)
    return [*lines, more]


def beheaded(lines: list[bytes]) -> list[bytes]:
    """The first five cut off, with a first line that hides it."""
    _, _, digest, _ = chain._parse(lines[4])  # type: ignore[misc]
    begin, _ = chained(chain.text_of({"kind": "begin", "previous": digest}), seq=5, previous=digest)
    return rewritten([begin, *lines[5:]], start=1)


FORGERIES: dict[str, Change] = {
    "a line edited": lambda lines: edited(lines, 4),
    "a line edited, the rest hashed anew": lambda lines: rewritten(edited(lines, 3), start=3),
    "the last line edited and hashed anew": lambda lines: rewritten(edited(lines, CALLS), start=CALLS),
    "the first call edited, the rest hashed anew": lambda lines: rewritten(edited(lines, 1), start=1),
    "the end cut off": lambda lines: lines[:-2],
    "a line cut out": lambda lines: [*lines[:4], *lines[5:]],
    "a line put behind the end": forged_end,
    "a blank line put in": lambda lines: [*lines[:5], b"\n", *lines[5:]],
    "the beginning cut off, the rest hashed anew": beheaded,
    "all lines gone": lambda _: [],
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_seen_by_the_head(folder: Path, name: str) -> None:
    """As long as `audit.head` was left alone."""
    [file] = day_files(folder)
    file.write_bytes(b"".join(FORGERIES[name](file.read_bytes().splitlines(keepends=True))))
    assert verify(folder).problems


@pytest.mark.parametrize("name", [name for name in FORGERIES if "behind the end" not in name])
def test_with_the_head_forged_too_it_is_seen_by_an_anchor(
    folder: Path, name: str, anchors: list[Anchor]
) -> None:
    """The anchor was kept elsewhere; what came after it alone can't be known."""
    [file] = day_files(folder)
    lines = FORGERIES[name](file.read_bytes().splitlines(keepends=True))
    file.write_bytes(b"".join(lines))
    if lines:
        seq, _, digest, _ = chain._parse(lines[-1])  # type: ignore[misc]
        head = chain.Head(seq, digest, file.name, sum(map(len, lines)))
        (folder / HEAD_NAME).write_bytes(format_head(head))
    assert anchors
    assert verify(folder, anchors).problems


@pytest.mark.parametrize("gone", [("head",), ("file",), ("head", "file")])
def test_what_is_gone_is_no_success(folder: Path, gone: tuple[str, ...]) -> None:
    """Neither a head without its lines, nor lines without their head, nor nothing at all."""
    [file] = day_files(folder)
    for name in gone:
        (folder / HEAD_NAME if name == "head" else file).unlink()
    ended = verify_by_command("--folder", str(folder))
    assert ended.returncode == (2 if len(gone) == 2 else 1)
    assert ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_untouched_trail_holds_with_its_anchors(
    folder: Path, anchors: list[Anchor], tmp_path: Path
) -> None:
    """In each form that they may be given in."""
    kept = tmp_path / "anchors"
    kept.write_text(
        "".join(json.dumps({"event": "audit_anchor", **anchor._asdict()}) + "\n" for anchor in anchors)
    )
    last = f"{anchors[-1].seq}:{anchors[-1].hash}"
    ended = verify_by_command("--folder", str(folder), "--anchors", str(kept), "--anchor", last)
    assert ended.returncode == 0, ended.stderr
    assert f"{len(anchors) + 1} anchors hold" in ended.stdout


@pytest.mark.parametrize("text", ["", "7", "x:y", "[]", '{"seq": true, "hash": "00"}', "1:" + "0" * 31])
def test_what_is_no_anchor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_anchor(text)


async def test_what_a_killed_process_wrote_is_settled_by_the_next_start(folder: Path) -> None:
    """The head is behind by what it had no time for; until then `verify` says so."""
    [file] = day_files(folder)
    lines = file.read_bytes().splitlines(keepends=True)
    head = parse_head((folder / HEAD_NAME).read_bytes())
    assert head is not None
    seq, _, digest, _ = chain._parse(lines[-3])  # type: ignore[misc]
    (folder / HEAD_NAME).write_bytes(
        format_head(chain.Head(seq, digest, file.name, sum(map(len, lines[:-2]))))
    )
    assert verify(folder).problems
    AuditTrail(folder, retention_days=90, clock=HandClock(NOV_24)).close()
    assert verify(folder).problems == ()


async def test_what_retention_takes_is_known_and_what_else_goes_is_not(tmp_path: Path) -> None:
    """Files are named by those that follow them, and retention says how far it went."""
    clock = HandClock(NOV_24)
    trail = AuditTrail(tmp_path, retention_days=3, clock=clock)
    for day in range(8):
        trail(settled(day))
        trail.flush()
        clock.now_s += 86_400
        assert verify(tmp_path).problems == ()
        await asyncio.sleep(0)
    trail.close()
    oldest, *_ = day_files(tmp_path)
    oldest.unlink()
    [problem] = verify(tmp_path).problems
    assert oldest.name in problem.reason


async def test_an_anchor_is_told_each_hour_and_with_each_file(tmp_path: Path) -> None:
    clock, told = HandClock(NOV_24), []
    trail = AuditTrail(tmp_path, retention_days=90, clock=clock, on_anchor=told.append)
    for wait_s in (0, 60, 60, 3_600, 60, 86_400, 60):
        clock.now_s += wait_s
        trail(settled(1))
        trail.flush()
    assert len(told) == 3
    trail.close()
    assert len(told) == 4
    assert verify(tmp_path, told).problems == ()


def test_the_numbers_of_lines_tell_of_one_that_is_missing(folder: Path) -> None:
    """The rest hashed anew around the gap and the head forged too, so that nothing else does."""
    [file] = day_files(folder)
    lines = file.read_bytes().splitlines(keepends=True)
    kept = rewritten([*lines[:4], *lines[5:]], start=4)
    file.write_bytes(b"".join(kept))
    seq, _, digest, _ = chain._parse(kept[-1])  # type: ignore[misc]
    (folder / HEAD_NAME).write_bytes(format_head(chain.Head(seq, digest, file.name, sum(map(len, kept)))))
    (problem,) = verify(folder).problems
    assert "lines are missing or were put in" in str(problem)
