"""A batch whose disk is full, and a spool in which odd things lie: nothing is called done that is not on disk."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from ai_client.batch import output, spool
from ai_client.batch.caller import Answer, LineSender
from ai_client.batch.lines import RequestLine
from ai_client.batch.output import LineFile
from ai_client.batch.runner import Batch, BatchEnd, Plan
from ai_client.batch.spool import LONGEST_NAME_BYTES, Claim, Spool
from ai_client.batch.worker import Worker, WorkerPlan

ROOT = Path(__file__).resolve().parents[3]


class Sender(LineSender):
    """Answers at once, without a gateway."""

    def __init__(self) -> None:
        self.sent = 0

    async def send(self, line: RequestLine) -> Answer:
        self.sent += 1
        return Answer(200, "", "", "r", 0.01, b'{"x":"' + b"y" * 500 + b'"}')


def write_input(path: Path, count: int, *, bad: bool = False) -> Path:
    line = {"custom_id": "c", "url": "/nowhere" if bad else "/v1/chat/completions", "body": {"model": "m"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps({**line, "custom_id": f"c{number}"}) + "\n" for number in range(count))
    )
    return path


def plan(folder: Path, count: int = 20, *, bad: bool = False) -> Plan:
    source = write_input(folder / "in.jsonl", count, bad=bad)
    return Plan(source, folder / "out", folder / "err", 4, 10**6, None, lambda _: 0.0, retry_failed=False)


def full_after(monkeypatch: pytest.MonkeyPatch, allowed_bytes: int) -> Callable[[], None]:
    """From now on files take so many bytes; the answer makes room again."""
    left = [allowed_bytes]

    def write(descriptor: int, data: bytes) -> int:
        taken = min(len(data), left[0])
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= taken
        return os_write(descriptor, data[:taken])

    os_write = os.write
    monkeypatch.setattr(output.os, "write", write)
    return monkeypatch.undo


@pytest.mark.parametrize("allowed_bytes", [0, 1, 700, 5_000])
async def test_a_full_disk_ends_a_batch_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed_bytes: int
) -> None:
    """At any byte: whole lines are in the output, they alone count, and each line is answered once in the end."""
    chosen, sender = plan(tmp_path), Sender()
    make_room = full_after(monkeypatch, allowed_bytes)
    batch = Batch(chosen, sender)
    assert await batch.run() is BatchEnd.UNWRITABLE
    assert "No space left on device" in batch.trouble
    assert str(chosen.output) in batch.trouble
    written = chosen.output.read_bytes()
    assert written.count(b"\n") == batch.tally.answered
    assert not written or written.endswith(b"\n")
    assert sender.sent <= batch.tally.answered + chosen.at_once
    make_room()
    again = Batch(chosen, sender)
    assert await again.run() is BatchEnd.DONE
    answered = [json.loads(line)["custom_id"] for line in chosen.output.read_text().splitlines()]
    assert sorted(answered) == sorted(f"c{number}" for number in range(20))


async def test_rejections_that_cannot_be_written_end_a_batch_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The errors file is an output as well."""
    full_after(monkeypatch, 0)
    assert await Batch(plan(tmp_path, bad=True), Sender()).run() is BatchEnd.UNWRITABLE


async def test_what_cannot_be_synced_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk may say so only then."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(output.os, "fsync", fail)
    assert await Batch(plan(tmp_path), Sender()).run() is BatchEnd.UNWRITABLE


async def test_a_full_spool_keeps_the_file_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not the file's fault: no attempt is counted, nothing goes to `failed`, and the worker lives."""
    write_input(tmp_path / "in" / "a.jsonl", 3)
    folders = Spool(tmp_path)

    def fail(path: Path, _: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(spool, "write_whole", fail)
    worker = Worker(folders, WorkerPlan(tmp_path / "none.sock", 2, 3, 10**6, pause_s=60.0))
    task = asyncio.create_task(worker.run(once=True))
    async with asyncio.timeout(10):
        while not (folders.work / "a.jsonl").exists():  # noqa: ASYNC110 - the condition is on disk
            await asyncio.sleep(0.001)
        worker.stop()
        await task
    monkeypatch.undo()
    assert not list(folders.failed.iterdir())
    claim = folders.claim()
    assert claim is not None
    assert claim.attempts() == 0
    claim.release()


@pytest.mark.parametrize("kind", ["pipe", "link", "dangling link", "folder"])
def test_what_is_no_file_is_refused_unopened(tmp_path: Path, kind: str) -> None:
    """It is set aside with the reason; what waits behind it is worked on."""
    folders = Spool(tmp_path / "spool")
    odd, secret = folders.incoming / "odd.jsonl", tmp_path / "secret"
    secret.write_text("a secret")
    if kind == "pipe":
        os.mkfifo(odd)
    elif kind == "folder":
        odd.mkdir()
    else:
        odd.symlink_to(secret if kind == "link" else tmp_path / "nowhere")
    write_input(folders.incoming / "good.jsonl", 1)
    os.utime(odd, (1, 1), follow_symlinks=False)
    claim = folders.claim()
    assert claim is not None
    assert claim.name == "good"
    claim.release()
    assert [name for name, _ in folders.take_refused()] == ["odd"]
    assert folders.take_refused() == []
    assert "regular file" in (folders.failed / "odd" / "reason.txt").read_text()
    assert not (folders.work / "odd.jsonl").is_symlink()


@pytest.mark.parametrize("letters", [7, 200, 201, 240, 255])
def test_a_file_with_a_long_name_stops_no_other(tmp_path: Path, letters: int) -> None:
    """What stands beside it while it is worked on could not be written; it would be tried again for ever, first."""
    folders = Spool(tmp_path / "spool")
    name = "n" * (letters - len(".jsonl"))
    write_input(folders.incoming / f"{name}.jsonl", 1)
    os.utime(folders.incoming / f"{name}.jsonl", (1, 1))
    write_input(folders.incoming / "good.jsonl", 1)
    claimed = []
    while claim := folders.claim():
        claimed.append(claim.name)
        claim.begin()
        claim.finish()
    assert claimed == ([name, "good"] if letters <= LONGEST_NAME_BYTES else ["good"])
    if letters > LONGEST_NAME_BYTES:
        assert "shorter" in (folders.failed / name / "reason.txt").read_text()


def test_a_second_file_of_a_name_waits_for_the_first(tmp_path: Path) -> None:
    """Neither takes the other's place, and each is set aside under a name of its own."""
    folders = Spool(tmp_path)
    write_input(folders.incoming / "a.jsonl", 1)
    first = folders.claim()
    assert first is not None
    write_input(folders.incoming / "a.jsonl", 2)
    assert folders.claim() is None
    first.output.write_text("one\n")
    assert first.finish().name == "a"
    second = folders.claim()
    assert second is not None
    assert second.source.read_text().count("\n") == 2
    assert second.finish().name == "a.2"
    assert (folders.done / "a" / "output.jsonl").read_text() == "one\n"


_KILLED = """
import os, sys
from pathlib import Path
from ai_client.batch import spool
claim = spool.Spool(Path(sys.argv[1])).claim()
count, last = [0], int(sys.argv[2])
def counted(call):
    def step(*args, **more):
        if count[0] == last:
            os.kill(os.getpid(), 9)
        count[0] += 1
        return call(*args, **more)
    return step
for owner, name in ((Path, "rename"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir"), (os, "fsync")):
    setattr(owner, name, counted(getattr(owner, name)))
claim.finish() if sys.argv[3] == "done" else claim.fail("no good")
"""


@pytest.mark.parametrize("place", ["done", "failed"])
def test_a_worker_killed_while_it_sets_a_file_aside_is_followed(tmp_path: Path, place: str) -> None:
    """At each step: the next worker ends the move and sends nothing again, and the next file of the name is new."""
    for step in range(40):
        folder = tmp_path / str(step)
        folders = Spool(folder)
        write_input(folders.incoming / "a.jsonl", 2)
        (folders.work / "a.output").write_text("answers\n")
        command = [sys.executable, "-c", textwrap.dedent(_KILLED), str(folder), str(step), place]
        ended = subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
        assert ended.returncode in {0, -signal.SIGKILL}, ended.stderr
        _follow(folders, place)
        [aside] = (folders.done if place == "done" else folders.failed).iterdir()
        assert (aside / "output.jsonl").read_text() == "answers\n"
        assert (aside / "input.jsonl").read_text().count("\n") == 2
        write_input(folders.incoming / "a.jsonl", 5)
        again = folders.claim()
        assert again is not None
        assert not again.finish_interrupted()
        assert (again.attempts(), again.output.exists()) == (0, False)
        again.release()
        if ended.returncode == 0:
            return
    pytest.fail("it was never done")


def _follow(folders: Spool, place: str) -> None:
    """As the next worker does."""
    claim: Claim | None = folders.claim()
    if claim is None:
        return
    if not claim.finish_interrupted():
        # Killed before the note of where to was there: the file is worked on as before.
        assert (claim.output.read_text(), list(folders.done.iterdir())) == ("answers\n", [])
        _ = claim.finish() if place == "done" else claim.fail("no good")


def test_a_line_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk takes half of it."""
    full_after(monkeypatch, 6)
    with LineFile(tmp_path / "out") as file:
        file.append(b"one\n")
        with pytest.raises(OSError, match="No space left"):
            file.append(b"two\n")
    assert (tmp_path / "out").read_bytes() == b"one\n"
