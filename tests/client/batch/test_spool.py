"""The spool folder: atomic claims, several workers, poison set aside, files of dead workers taken up again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ai_client.batch.spool import Spool
from ai_client.testing import Simulator, SimulatorOptions
from tests.client.service_rig import Rig, running_service, until

pytestmark = pytest.mark.slow


def put(spool: Path, name: str, count: int) -> None:
    """A file of requests, put into the spool by rename."""
    lines = [
        {
            "custom_id": f"{name}-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "gpt-4.1",
                "messages": [{"role": "user", "content": f"{name}-{number}"}],
                "max_tokens": 1,
            },
        }
        for number in range(count)
    ]
    (spool / "in").mkdir(parents=True, exist_ok=True)
    partial = spool / f"{name}.partial"
    partial.write_text("".join(json.dumps(line) + "\n" for line in lines))
    partial.rename(spool / "in" / f"{name}.jsonl")


def read(path: Path) -> list[dict[str, Any]]:
    """All lines of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_file_is_claimed_once(tmp_path: Path) -> None:
    """However many workers look."""
    put(tmp_path, "a", 1)
    spool = Spool(tmp_path)
    claim = spool.claim()
    assert claim is not None
    assert spool.claim() is None
    claim.release()
    again = spool.claim()
    assert again is not None
    assert again.name == "a"


def test_a_name_that_comes_twice_keeps_both(tmp_path: Path) -> None:
    """The second waits for the first, and gets a folder of its own."""
    spool = Spool(tmp_path)
    put(tmp_path, "a", 1)
    first = spool.claim()
    assert first is not None
    put(tmp_path, "a", 2)
    assert spool.claim() is None
    assert first.finish().name == "a"
    second = spool.claim()
    assert second is not None
    assert second.finish().name == "a.2"


def test_hidden_files_and_other_names_are_left_alone(tmp_path: Path) -> None:
    """Somebody may be writing them."""
    spool = Spool(tmp_path)
    (spool.incoming / ".a.jsonl").touch()
    (spool.incoming / "b.jsonl.partial").touch()
    (spool.incoming / "c.jsonl").symlink_to("/etc/passwd")
    assert spool.claim() is None


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A provider that takes 20 ms an answer."""
    async with Simulator(SimulatorOptions(latency_ms=20)) as running:
        yield running


@pytest.fixture
async def rig(tmp_path: Path, simulator: Simulator) -> AsyncIterator[Rig]:
    """A running service."""
    async with running_service(tmp_path, simulator, extra="rate_limit = 100000") as running:
        yield running


async def serve(rig: Rig, *more: str) -> asyncio.subprocess.Process:
    """Start a process of workers."""
    options = ["--config", str(rig.config), "--spool", str(rig.folder / "spool"), *more]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ai_client.cli", "batch", "serve", *options
    )


async def test_files_are_worked_through_by_several_processes(rig: Rig) -> None:
    """Each once, with its output, its errors and its input in a folder of its name."""
    spool = rig.folder / "spool"
    for name in ("a", "b", "c", "d"):
        put(spool, name, 10)
    (spool / "in" / "d.jsonl").open("a").write("no json\n")
    processes = [await serve(rig, "--once") for _ in range(2)]
    assert [await process.wait() for process in processes] == [0, 0]
    for name in ("a", "b", "c", "d"):
        answers = read(spool / "done" / name / "output.jsonl")
        assert {line["custom_id"] for line in answers} == {f"{name}-{number}" for number in range(10)}
        assert len(answers) == 10
        assert (spool / "done" / name / "input.jsonl").exists()
    assert read(spool / "done" / "d" / "errors.jsonl")[0]["error"]["line"] == 11
    assert list((spool / "work").iterdir()) == []


async def test_a_file_of_a_killed_worker_is_taken_up_where_it_stopped(rig: Rig, simulator: Simulator) -> None:
    """kill -9, and another worker goes on."""
    spool = rig.folder / "spool"
    put(spool, "a", 100)
    process = await serve(rig, "--workers", "1", "--at-once", "4")
    await until(lambda: simulator.counts.answered >= 20, what="20 answers")
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    assert await (await serve(rig, "--once")).wait() == 0
    answers = read(spool / "done" / "a" / "output.jsonl")
    assert len(answers) == len({line["custom_id"] for line in answers}) == 100
    assert simulator.counts.by_path["/v1/chat/completions"] <= 104


async def test_poison_is_set_aside_after_some_attempts(rig: Rig) -> None:
    """A file that kills its worker each time, and one whose output is not ours."""
    spool = rig.folder / "spool"
    put(spool, "killer", 1)
    put(spool, "odd", 1)
    claimed = Spool(spool)
    (claimed.work / "killer.attempts").write_text("3")
    (claimed.work / "odd.output").write_text("something else\n")
    assert await (await serve(rig, "--once")).wait() == 0
    assert "given up after 3 attempts" in (spool / "failed" / "killer" / "reason.txt").read_text()
    assert "not a batch's answers" in (spool / "failed" / "odd" / "reason.txt").read_text()


async def test_a_stop_leaves_the_file_to_the_next_worker(rig: Rig, simulator: Simulator) -> None:
    """SIGTERM: what is under way ends, no attempt is counted."""
    spool = rig.folder / "spool"
    put(spool, "a", 200)
    process = await serve(rig, "--workers", "1", "--at-once", "2")
    await until(lambda: simulator.counts.answered >= 10, what="10 answers")
    process.terminate()
    assert await process.wait() == 0
    assert (spool / "work" / "a.attempts").read_text() == "0"
    assert len(read(spool / "work" / "a.output")) == simulator.counts.by_path["/v1/chat/completions"]


async def test_a_batch_host_works_through_its_spool_by_itself(tmp_path: Path, simulator: Simulator) -> None:
    """`[batch] mode = true` gives the service a child for it, which ends with the service."""
    spool = tmp_path / "spool"
    put(spool, "a", 5)
    extra = f"rate_limit = 100000\n[batch]\nmode = true\nspool_dir = {spool}"
    async with running_service(tmp_path, simulator, extra=extra) as rig:
        await until((spool / "done" / "a" / "input.jsonl").exists, what="the file to be done")
        assert len(read(spool / "done" / "a" / "output.jsonl")) == 5
        assert await rig.stop() == 0
