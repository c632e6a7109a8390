"""What callers may take of the service together: connections, and memory for bodies and answers."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_client.gateway.app.body_room import SMALL_BYTES, BodyRoom
from ai_client.gateway.app.callers import Caller
from ai_client.gateway.app.failures import Failure
from ai_client.gateway.app.headers import Steering
from ai_client.gateway.app.incoming import IncomingCall
from ai_client.gateway.http.asgi import Receive, Scope, Send, respond_json
from ai_client.gateway.http.crowd import Crowd
from ai_client.gateway.http.shared import Bounds
from ai_client.testing import Simulator
from tests.client.gateway.gateway_socket import served
from tests.client.service_rig import running_service, until

REQUEST = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
FEW = Bounds(connections=6, per_caller=3, trusted_uids=frozenset())


class Held:
    """An application whose answers to /held wait."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        if scope["path"] == "/held":
            await self.go.wait()
        await respond_json(send, 200, {})


async def _asked(path: Path, target: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(REQUEST % target)
    return reader, writer


async def test_a_caller_with_too_many_connections_loses_the_longest_idle(tmp_path: Path) -> None:
    """What is being answered goes on; who comes is served."""
    path = tmp_path / "gateway.sock"
    app = Held()
    async with served(app, path, FEW) as server:
        busy_reader, busy = await _asked(path, b"/held")
        await until(lambda: server.requests_in_flight == 1, what="the first request")
        lines = []
        for _ in range(4):
            lines.append(await _asked(path, b"/"))
            assert (await lines[-1][0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await lines[0][0].read() == b"{}", "the longest idle ends behind its answer"
        assert server.refused == 2
        app.go.set()
        assert (await busy_reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        for _, writer in [*lines, (busy_reader, busy)]:
            writer.close()
        await until(lambda: server.connections == 0, what="all to leave")


async def test_where_all_are_being_answered_the_newcomer_is_sent_away(tmp_path: Path) -> None:
    """With a status, a reason and a time."""
    path = tmp_path / "gateway.sock"
    app = Held()
    async with served(app, path, FEW) as server:
        lines = [await _asked(path, b"/held") for _ in range(3)]
        await until(lambda: server.requests_in_flight == 3, what="three requests")
        reader, writer = await asyncio.open_unix_connection(path)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_many_connections"
        app.go.set()
        for held, _ in lines:
            assert (await held.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        for each in [writer, *(writer for _, writer in lines)]:
            each.close()


class _Member:
    def __init__(self, uid: int) -> None:
        self.caller: object = uid
        self.is_here = False
        self.is_busy = False

    def leave_idle(self) -> None:
        assert not self.is_busy
        self.is_here = False


_STEPS = st.lists(
    st.tuples(st.sampled_from(["come", "busy", "idle", "leave"]), st.integers(0, 5)), max_size=80
)


@given(_STEPS)
@settings(max_examples=150, deadline=None)
def test_a_crowd_keeps_its_bounds_and_counts_right(steps: list[tuple[str, int]]) -> None:
    """Whoever comes, works, rests and leaves, in whatever order."""
    crowd = Crowd(Bounds(connections=5, per_caller=2, trusted_uids=frozenset({0})))
    here: list[_Member] = []
    for what, number in steps:
        if what == "come":
            member = _Member(number % 3)
            member.is_here = crowd.admits(member)
            here = [each for each in [*here, member] if each.is_here]
        elif here:
            member = here[number % len(here)]
            if what == "busy":
                member.is_busy = True
                crowd.busy(member)
            elif what == "idle":
                member.is_busy = False
                crowd.idle(member)
            else:
                crowd.left(member)
                here.remove(member)
        assert len(crowd) == len(here) <= 5
        for uid in (1, 2):
            assert sum(each.caller == uid for each in here) <= 2
    for member in here:
        crowd.left(member)
    assert len(crowd) == 0


def _call(room: BodyRoom, tenant: str, pieces: list[bytes]) -> IncomingCall:
    left = list(pieces)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": left.pop(), "more_body": bool(left)}

    async def send(_: Any) -> None:
        """Nothing is sent."""

    caller = Caller(tenant, 5, is_operator=False)
    return IncomingCall(
        "POST", "/v1/chat/completions",
        caller=caller, steering=Steering(), receive=receive, send=send, task=None, arrived_s=0.0, room=room,
    )  # fmt: skip


async def test_bodies_beyond_the_memory_for_them_are_refused_and_small_ones_never() -> None:
    """One tenant can't take what the others need, and what has ended takes nothing."""
    room = BodyRoom(100 * SMALL_BYTES)
    piece = b"x" * SMALL_BYTES
    first = _call(room, "greedy", [piece] * 40)
    assert isinstance(await first.body(10**9), bytes)
    second = _call(room, "greedy", [piece] * 40)
    refused = await second.body(10**9)
    assert isinstance(refused, Failure)
    assert (refused.status, refused.code, refused.may_retry) == (503, "bodies_in_flight", True)
    assert isinstance(await _call(room, "greedy", [piece]).body(10**9), bytes)
    other = _call(room, "modest", [piece] * 40)
    assert isinstance(await other.body(10**9), bytes)
    for call in (first, second, other):
        call.ended()
        call.ended()
    assert room.taken == 0
    assert room.refused == 1


@pytest.mark.slow
async def test_connections_to_the_metrics_take_no_descriptors_of_callers(tmp_path: Path) -> None:
    """firedancer-io/firedancer#2354, prometheus/client_java#2284: who opens them without end is asked for no token."""
    start = ("bash", "-c", f'ulimit -n 400; exec {sys.executable} -m ai_client.cli "$@"', "serve")
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator())
        rig = await stack.enter_async_context(running_service(tmp_path, simulator, start=start))
        writers = []
        for _ in range(500):
            _, writer = await asyncio.open_connection("127.0.0.1", rig.metrics_port)
            writers.append(writer)
        client = await stack.enter_async_context(rig.client())
        scraper = await stack.enter_async_context(httpx.AsyncClient())
        for seed in range(3):
            answer = await client.post("/v1/chat/completions", json=CHAT | {"seed": seed})
            assert answer.status_code == 200, answer.text
            metrics = await scraper.get(f"http://127.0.0.1:{rig.metrics_port}/metrics")
            assert metrics.status_code == 200
        for writer in writers:
            writer.close()
