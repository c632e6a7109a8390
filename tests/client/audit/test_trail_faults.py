"""The audit trail where its disk, its lock or a neighbour is at fault."""

import asyncio
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ai_client.audit.chain import HEAD_NAME, verify
from ai_client.audit.trail import AuditTrail
from ai_client.contract.events import EventStream, StoreDegraded
from tests.client.audit.audit_stage import NOV_24, day_files, lines, settled, size_of, turns
from tests.client.hand_clock import HandClock
from tests.client.service_rig import until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


async def test_lines_that_can_not_be_written_wait_and_what_is_lost_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told once; when the disk works again the trail says how many calls it misses."""
    monkeypatch.setattr("ai_client.audit.trail._MAX_WAITING", 3)
    events = EventStream()
    seen: list[object] = []
    events.subscribe(seen.append)
    trail = AuditTrail(folder, retention_days=90, clock=HandClock(NOV_24), events=events)
    in_the_way = folder / "audit-2026-11-24.jsonl"
    in_the_way.mkdir()
    for number in range(5):
        trail(settled(number))
    await turns(2)
    assert [type(event) for event in seen] == [StoreDegraded]
    in_the_way.rmdir()
    trail.close()
    assert [line.get("calls") for line in lines(folder) if line["kind"] == "lost"] == [2]
    assert [line["request_id"] for line in lines(folder) if line["kind"] == "call"] == ["r-0", "r-1", "r-2"]
    assert verify(folder).problems == ()


CHILD = """
import asyncio, sys
from pathlib import Path
from ai_client.audit.trail import AuditTrail
from tests.client.audit.audit_stage import settled, turns

async def main():
    trail = AuditTrail(Path(sys.argv[1]), retention_days=10_000)
    print("ready", flush=True)
    sys.stdin.read()
    for number in range(400):
        trail(settled(number))
        await turns(2)
    trail.close()

asyncio.run(main())
"""


def test_several_processes_write_one_chain(folder: Path) -> None:
    """Three at once, a line a write: every line is there and the chain is whole."""
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
    for child in children:
        assert child.wait(timeout=60) == 0
        assert child.stdout is not None
        child.stdout.close()
    report = verify(folder)
    assert report.problems == ()
    assert sum(line["kind"] == "call" for line in lines(folder)) == 1_200


async def test_a_lock_held_by_another_process_is_waited_for_without_blocking_the_loop(folder: Path) -> None:
    """The loop turns meanwhile; the lines come as soon as the lock is free."""
    trail = AuditTrail(folder, retention_days=90)
    other = os.open(folder / HEAD_NAME, os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX)
    trail(settled())
    for _ in range(5):
        await asyncio.sleep(0)
    assert day_files(folder) == []
    os.close(other)
    await until(lambda: bool(day_files(folder)), what="the line")
    assert verify(folder).problems == ()


async def test_a_killed_process_leaves_a_chain_that_goes_on(folder: Path) -> None:
    """Killed while it writes, three times: nothing is torn, and the next process goes on behind it."""
    for _ in range(3):
        child = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs on this loop
            [sys.executable, "-c", CHILD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        before = size_of(folder)
        child.stdin.close()
        while size_of(folder) == before and child.poll() is None:
            pass
        child.kill()
        child.wait(timeout=30)
        child.stdout.close()
        trail = AuditTrail(folder, retention_days=10_000)
        trail(settled(777))
        trail.close()
        assert verify(folder).problems == ()


FULL_DISK = """
import resource, sys
from pathlib import Path
from ai_client.audit.trail import AuditTrail
from tests.client.audit.audit_stage import settled, turns

trail = AuditTrail(Path(sys.argv[1]), retention_days=10_000)
import asyncio

async def main():
    trail(settled(1))
    trail.flush()
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    # In the middle of a line: the kernel writes a part of it and refuses the rest, as a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (800, unlimited[1]))
    trail(settled(2))
    try:
        trail.flush()
    except OSError as error:
        print(error.strerror, flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    trail(settled(3))
    trail.close()

asyncio.run(main())
"""


def test_a_disk_that_fills_up_in_the_middle_of_a_line_leaves_no_half_of_it(folder: Path) -> None:
    """The part that was written is taken back; with room again the line comes whole, and none is missing."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, folder], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "No space left on device"
    assert [line.get("request_id") for line in lines(folder)] == [None, "r-1", "r-2", "r-3"]
    assert verify(folder).problems == ()
