"""`ai-client batch run` against a real service: every line answered once, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ai_client.testing import Simulator, SimulatorOptions, faults
from tests.client.service_rig import Rig, running_service, until

pytestmark = pytest.mark.slow


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A provider that takes 20 ms an answer."""
    async with Simulator(SimulatorOptions(latency_ms=20)) as running:
        yield running


@pytest.fixture
async def rig(tmp_path: Path, simulator: Simulator) -> AsyncIterator[Rig]:
    """A running service without a cache, so that every request is seen upstream."""
    extra = "rate_limit = 100000\nmax_concurrent_requests = 10"
    async with running_service(tmp_path, simulator, extra=extra) as running:
        yield running


def write_input(path: Path, count: int, **body: Any) -> None:
    """Requests that can be told apart upstream by what they say."""
    with path.open("w") as file:
        for number in range(count):
            messages = [{"role": "user", "content": f"line-{number}"}]
            request = {"model": "gpt-4.1", "messages": messages, "max_tokens": 1, **body}
            line = {
                "custom_id": f"id-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": request,
            }
            file.write(json.dumps(line) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All lines of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def arguments(rig: Rig, *more: str) -> list[str]:
    """The command's."""
    files = [str(rig.folder / "in.jsonl"), "-o", str(rig.folder / "out.jsonl")]
    return ["batch", "run", *files, "--config", str(rig.config), "--json", *more]


async def run(rig: Rig, *more: str) -> tuple[int, dict[str, Any]]:
    """Run it to its end: exit code and report."""
    process = await start(rig, *more)
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, json.loads(out) if out else {}


async def start(rig: Rig, *more: str) -> asyncio.subprocess.Process:
    """Start it."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ai_client.cli", *arguments(rig, *more), stdout=asyncio.subprocess.PIPE
    )


async def test_every_line_is_answered(rig: Rig, simulator: Simulator) -> None:
    """In any order, each by its custom_id."""
    write_input(rig.folder / "in.jsonl", 50)
    code, report = await run(rig)
    answers = {line["custom_id"]: line for line in read(rig.folder / "out.jsonl")}
    assert (code, report["answered"], report["ending"]) == (0, 50, "done")
    assert len(answers) == 50
    assert answers["id-7"]["response"]["body"]["choices"][0]["message"]["content"] == "line-7"
    assert report["cost_usd"] > 0
    assert {arrival.priority for arrival in simulator.arrivals if "chat" in arrival.path} == {"9"}


async def test_bad_lines_and_failures_go_into_the_errors_file(rig: Rig, simulator: Simulator) -> None:
    """With line number and reason; the others are answered; a second run tries failures only when told."""
    path = rig.folder / "in.jsonl"
    write_input(path, 3)
    path.write_text(path.read_text() + "no json\n")
    simulator.faults.add(faults.parse("400"), count=1)
    code, report = await run(rig)
    errors = read(rig.folder / "out.jsonl.errors")
    assert (code, report["answered"], report["failed"], report["rejected"]) == (1, 2, 1, 1)
    assert {error["error"]["code"] for error in errors} == {"invalid_line", "simulated"}
    assert [error["error"]["line"] for error in errors if error["custom_id"] is None] == [4]
    arrivals = simulator.counts.arrivals
    assert (await run(rig))[0] == 1
    assert simulator.counts.arrivals == arrivals
    code, report = await run(rig, "--retry-failed")
    assert (code, report["answered"], report["failed"], report["rejected"]) == (1, 3, 0, 1)
    assert simulator.counts.arrivals == arrivals + 1


async def test_a_kill_at_any_moment_loses_and_repeats_nothing(rig: Rig, simulator: Simulator) -> None:
    """kill -9 five times: each line once in the output, and only lines in flight at a kill were sent again."""
    write_input(rig.folder / "in.jsonl", 300)
    output = rig.folder / "out.jsonl"
    killed = 0
    for _ in range(5):
        before = simulator.counts.answered
        process = await start(rig, "--at-once", "8")
        await until(lambda before=before: simulator.counts.answered >= before + 25, what="25 more answers")
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        killed += 1
    code, report = await run(rig)
    answered = Counter(line["custom_id"] for line in read(output))
    assert (code, report["answered"]) == (0, 300)
    assert set(answered.values()) == {1}
    assert len(answered) == 300
    assert simulator.counts.by_path["/v1/chat/completions"] <= 300 + killed * 8


async def test_a_cap_is_never_passed(rig: Rig) -> None:
    """It stops before a line that could pass it, and a higher cap goes on from there."""
    write_input(rig.folder / "in.jsonl", 40)
    code, report = await run(rig, "--max-usd", "0.0012", "--at-once", "4")
    assert (code, report["ending"]) == (3, "budget")
    assert 0 < report["cost_usd"] <= 0.0012
    code, report = await run(rig, "--max-usd", "10")
    assert (code, report["answered"]) == (0, 40)


async def test_a_restart_of_the_service_is_ridden_out(tmp_path: Path, simulator: Simulator) -> None:
    """The batch waits for the gateway to come back."""
    (tmp_path / "in.jsonl").touch()
    async with running_service(tmp_path, simulator, extra="rate_limit = 100000") as rig:
        write_input(rig.folder / "in.jsonl", 200)
        process = await start(rig, "--at-once", "4")
        await until(lambda: simulator.counts.answered >= 20, what="20 answers")
        await rig.stop()
        async with running_service(tmp_path, simulator, extra="rate_limit = 100000"):
            async with asyncio.timeout(60):
                out, _ = await process.communicate()
    report = json.loads(out)
    assert (process.returncode, report["answered"]) == (0, 200)
    assert len({line["custom_id"] for line in read(tmp_path / "out.jsonl")}) == 200


async def test_a_stop_ends_what_is_under_way_and_says_how_to_go_on(rig: Rig, simulator: Simulator) -> None:
    """Ctrl-C is no kill."""
    write_input(rig.folder / "in.jsonl", 500)
    process = await start(rig, "--at-once", "4")
    await until(lambda: simulator.counts.answered >= 20, what="20 answers")
    process.send_signal(signal.SIGINT)
    out, _ = await process.communicate()
    report = json.loads(out)
    assert (process.returncode, report["ending"]) == (130, "stopped")
    assert report["answered"] == len(read(rig.folder / "out.jsonl")) == report["sent"]


async def test_another_input_for_the_same_output_is_refused(rig: Rig) -> None:
    """Exit code 2, nothing sent."""
    write_input(rig.folder / "in.jsonl", 3)
    assert (await run(rig))[0] == 0
    write_input(rig.folder / "in.jsonl", 3, temperature=1)
    assert (await run(rig))[0] == 2
