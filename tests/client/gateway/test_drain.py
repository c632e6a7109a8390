"""SIGTERM: what runs ends well, what comes is told to come again, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ai_client.testing import Simulator, SimulatorOptions
from tests.client.service_rig import DEADLINE_S, Rig, running_service, until

pytestmark = pytest.mark.slow

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello world"}], "max_tokens": 40}
SLOW = SimulatorOptions(token_ms=25)
# Its answer is larger than what a socket and its reader take before anybody reads.
LARGE = {"model": "text-embedding-3-small", "input": [f"text {number}" for number in range(20_000)]}


def request_bytes(body: dict[str, object], *, endpoint: str = "chat/completions") -> bytes:
    """A request for a kept connection."""
    data = json.dumps(body).encode()
    head = f"POST /v1/{endpoint} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


async def connected(rig: Rig) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has had one answer, so that the gateway knows it."""
    reader, writer = await asyncio.open_unix_connection(str(rig.socket))
    writer.write(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().splitlines() if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return reader, writer


async def test_a_running_stream_ends_whole_and_the_exit_code_is_0(tmp_path: Path) -> None:
    """A stop waits for it, and then removes the socket."""
    async with (
        Simulator(SLOW) as simulator,
        running_service(tmp_path, simulator) as rig,
        rig.client() as client,
    ):
        async with client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as answer:
            lines = answer.aiter_lines()
            first = await anext(lines)
            rig.process.send_signal(signal.SIGTERM)
            rest = [line async for line in lines]
        assert first.startswith("data: {")
        assert [line for line in rest if line][-1] == "data: [DONE]"
        assert await rig.stop() == 0
        assert not rig.socket.exists()


@asynccontextmanager
async def large_answer(rig: Rig) -> AsyncIterator[asyncio.StreamReader]:
    """A connection whose answer has begun to arrive, and is read no further than its first byte."""
    reader, writer = await asyncio.open_unix_connection(str(rig.socket), limit=1)
    writer.write(request_bytes(LARGE, endpoint="embeddings"))
    assert await reader.readexactly(1) == b"H"
    yield reader
    writer.close()


async def test_an_answer_that_is_written_but_not_yet_read_arrives_whole(tmp_path: Path) -> None:
    """What the kernel has no room for stays in the process, which must not end with it."""
    async with Simulator() as simulator, running_service(tmp_path, simulator) as rig:
        async with large_answer(rig) as reader:
            rig.process.send_signal(signal.SIGTERM)
            await until(lambda: not accepts(rig), what="the port to be closed")
            _, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert len(json.loads(body)["data"]) == len(LARGE["input"])
        assert await rig.stop() == 0


async def test_a_caller_who_never_reads_holds_nobody_up(tmp_path: Path) -> None:
    """After drain_seconds the process ends all the same."""
    async with Simulator() as simulator, running_service(tmp_path, simulator) as rig:
        rig.config.write_text(rig.config.read_text().replace("drain_seconds = 5", "drain_seconds = 0.3"))
        assert (await rig.command("reload")).code == 0
        async with large_answer(rig) as reader:
            rig.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(DEADLINE_S):
                assert await rig.process.wait() == 0
            _, _, body = (await reader.read()).partition(b"\r\n\r\n")
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)


async def test_a_request_on_a_kept_connection_is_told_to_come_again(tmp_path: Path) -> None:
    """503 with Retry-After and `Connection: close`, which SDKs follow by themselves."""
    async with Simulator(SLOW) as simulator, running_service(tmp_path, simulator) as rig:
        reader, writer = await connected(rig)
        async with rig.client() as client:
            stream = client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True})
            async with stream as answer:
                lines = answer.aiter_lines()
                await anext(lines)
                rig.process.send_signal(signal.SIGTERM)
                await until(lambda: not accepts(rig), what="the port to be closed")
                writer.write(request_bytes(CHAT))
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                assert [line async for line in lines if line][-1] == "data: [DONE]"
        writer.close()
    assert head.startswith(b"http/1.1 503")
    assert b"retry-after: 1" in head
    assert b"connection: close" in head
    assert b"x-should-retry" not in head


def accepts(rig: Rig) -> bool:
    """Whether the TCP port still takes connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", rig.port)) == 0


async def test_a_drain_has_an_end(tmp_path: Path) -> None:
    """After drain_seconds what still runs is cut off, and the upstream call with it."""
    async with Simulator() as simulator, running_service(tmp_path, simulator) as rig:
        text = rig.config.read_text().replace("drain_seconds = 5", "drain_seconds = 0.3")
        rig.config.write_text(text)
        assert (await rig.command("reload")).code == 0
        async with rig.client() as client:
            task = asyncio.create_task(
                client.post("/v1/chat/completions", json=CHAT | {"x_simulator_fault": "hang"})
            )
            await until(lambda: simulator.counts.in_flight == 1, what="the request upstream")
            rig.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(DEADLINE_S):
                assert await rig.process.wait() == 0
            assert (await task).json()["error"]["code"] == "draining"
        await until(lambda: simulator.counts.in_flight == 0, what="the upstream call to be cancelled")


async def test_a_stream_that_is_cut_off_ends_with_an_error_event(tmp_path: Path) -> None:
    """The caller must not take half an answer for a whole one."""
    async with (
        Simulator(SLOW) as simulator,
        running_service(tmp_path, simulator) as rig,
        rig.client() as client,
    ):
        rig.config.write_text(rig.config.read_text().replace("drain_seconds = 5", "drain_seconds = 0.2"))
        assert (await rig.command("reload")).code == 0
        body = CHAT | {"stream": True, "x_simulator_fault": "stall"}
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            rig.process.send_signal(signal.SIGTERM)
            rest = [line async for line in lines if line]
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "draining"


async def test_no_answer_is_lost_while_a_changed_configuration_is_put_in_place(tmp_path: Path) -> None:
    """A request keeps the client that it began with."""
    options = SimulatorOptions(latency_ms=300)
    async with (
        Simulator(options) as simulator,
        running_service(tmp_path, simulator) as rig,
        rig.client() as client,
    ):
        bodies = [CHAT | {"seed": number} for number in range(5)]
        tasks = [asyncio.create_task(client.post("/v1/chat/completions", json=body)) for body in bodies]
        await until(lambda: simulator.counts.in_flight == 5, what="five requests upstream")
        rig.set_config(simulator.base_url, "rate_limit = 5000\nread_timeout = 50")
        answer = (await rig.command("reload", "--json")).json()
        statuses = [(await task).status_code for task in tasks]
    assert answer["changed"] == ["performance"]
    assert statuses == [200] * 5
