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


async def test_a_cap_counts_what_lines_cost_and_not_what_those_under_way_might(rig: Rig) -> None:
    """Lines without max_tokens may cost far more than they do: they wait for each other, and all are answered."""
    lines = [
        {
            "custom_id": str(n),
            "url": "/v1/chat/completions",
            "body": {"messages": [{"role": "user", "content": "hi"}]},
        }
        for n in range(12)
    ]
    (rig.folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, report = await run(rig, "--max-usd", "0.5", "--at-once", "12")
    assert (code, report["answered"]) == (0, 12)
    assert report["cost_usd"] < 0.25


async def test_a_cap_that_leaves_no_room_says_what_a_line_may_cost(rig: Rig) -> None:
    """And what to do: one line may cost more than all that is left."""
    line = {"custom_id": "1", "url": "/v1/chat/completions", "body": {"messages": []}}
    (rig.folder / "in.jsonl").write_text(json.dumps(line) + "\n")
    code, report = await run(rig, "--max-usd", "0.01")
    assert code == 3
    assert "line 1 may cost up to $0.2" in report["reason"]
    assert "raise --max-usd, or set max_tokens" in report["reason"]


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


async def test_lines_of_every_api_are_answered(rig: Rig) -> None:
    """Each goes to its own path, and is counted as there."""
    bodies = {
        "/v1/responses": {"model": "gpt-4.1", "input": "hello", "max_output_tokens": 4},
        "/v1/messages": {
            "model": "claude-sonnet-4.5",
            "max_tokens": 4,
            "messages": [{"role": "user", "content": "hi"}],
        },
        "/v1/embeddings": {"model": "text-embedding-3-small", "input": "hello"},
        "/v1/moderations": {"input": "hello"},
    }
    lines = [{"custom_id": url, "method": "POST", "url": url, "body": body} for url, body in bodies.items()]
    (rig.folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, report = await run(rig)
    told = rig.folder / "out.jsonl.errors"
    assert (code, report["answered"]) == (0, len(bodies)), told.read_text() if told.exists() else report
    answers = {line["custom_id"]: line["response"]["body"] for line in read(rig.folder / "out.jsonl")}
    assert answers["/v1/responses"]["object"] == "response"
    assert answers["/v1/messages"]["type"] == "message"


async def test_a_cap_refuses_a_line_that_nothing_bounds(rig: Rig) -> None:
    """It would be no cap; without one the line goes."""
    write_input(rig.folder / "in.jsonl", 1, web_search_options={"search_context_size": "high"})
    code, report = await run(rig, "--max-usd", "10")
    assert (code, report["ending"], report["sent"]) == (3, "budget", 0)
    assert "nothing bounds what line 1 may cost" in report["reason"]
    assert (await run(rig))[0] == 0


async def test_an_account_without_credit_ends_it_with_a_code_of_its_own(
    tmp_path: Path,
) -> None:
    """Exit code 6: the lines are left to be done, and nothing is written of them."""
    error = {"message": "You exceeded your current quota", "code": "insufficient_quota"}
    body = json.dumps({"error": error}).encode()
    head = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while header := await reader.readuntil(b"\r\n\r\n"):
            length = int(header.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or b"0")
            await reader.readexactly(length)
            writer.write(head % len(body) + body)

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Simulator() as simulator, running_service(tmp_path, simulator) as rig:
        rig.set_config(f"http://127.0.0.1:{port}/v1", "[models]\nfallback =")
        assert (await rig.command("reload")).code == 0
        write_input(rig.folder / "in.jsonl", 20)
        code, report = await run(rig, "--at-once", "2")
        assert (code, report["ending"], report["answered"], report["failed"]) == (6, "quota", 0, 0)
        assert "quota" in report["reason"]
        assert not (rig.folder / "out.jsonl.errors").exists() or not read(rig.folder / "out.jsonl.errors")
        server.close()
