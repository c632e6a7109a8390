"""Callers who share one call: whoever of them leaves, one of those who stay accounts for it, and only one."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest

from ai_client import AIAPIClient
from ai_client.cache.response_cache import ResponseCache
from ai_client.contract.events import EventStream, Failed, Settled
from ai_client.contract.request import Request
from ai_client.ledger.ledger import SpendLedger
from ai_client.ledger.prices import Price, Prices
from tests.client.service_rig import until
from tests.client.transport.upstreams import Connection, serving

_USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
_WHOLE = json.dumps(
    {"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "hello"}}], "usage": _USAGE}
).encode()
_CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":null}]}\n\n'
_REST = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":%b}\n\ndata: [DONE]\n\n' % json.dumps(_USAGE).encode()
)


class Upstream:
    """Begins a stream at once; everything else waits for its word."""

    def __init__(self) -> None:
        self.more, self.go = asyncio.Event(), asyncio.Event()
        self.asked = 0

    async def __call__(self, connection: Connection) -> None:
        while request := await connection.read_request():
            self.asked += 1
            size = len(_CHUNK + _CHUNK + _REST)
            if b'"stream":true' in request:
                head = (
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % size
                )
                await connection.send(head + _CHUNK)
                await self.more.wait()
                await connection.send(_CHUNK)
                await self.go.wait()
                await connection.send(_REST)
            else:
                await self.go.wait()
                head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                await connection.send(head % len(_WHOLE) + _WHOLE)


async def _read(client: AIAPIClient, chunks: list[bytes], *, is_stream: bool) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    request = Request(endpoint="chat/completions", body=body, stream=is_stream)
    if not is_stream:
        await client.send(request)
        return
    async with await client.stream(request) as stream:
        async for chunk in stream:
            chunks.append(chunk)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("leavers", [0, 1, 2])
async def test_one_of_those_who_stay_accounts_for_the_call(
    tmp_path: Path, *, is_stream: bool, leavers: int
) -> None:
    """Its audit line has the cost that the ledger has; the others' lines are of a shared answer that cost nothing."""
    told: list[Settled | Failed] = []
    events = EventStream()
    events.subscribe(told.append, Settled, Failed)
    cache = ResponseCache(tmp_path / "cache", scope="s", max_bytes=10**7)
    prices = Prices({"m": Price(input_nusd=10**9, output_nusd=10**9, cached_input_nusd=0)})
    ledger = SpendLedger(tmp_path / "ledger.sqlite", prices=prices)
    upstream = Upstream()
    async with serving(upstream) as server:
        client = AIAPIClient(
            "hs_test_0123456789abcdef", base_url=f"{server.url}/v1", cache=cache, ledger=ledger, events=events
        )
        read: list[list[bytes]] = [[] for _ in range(4)]
        callers = [asyncio.create_task(_read(client, each, is_stream=is_stream)) for each in read]
        await until(lambda: upstream.asked == 1, what="the call")
        if is_stream:
            await until(lambda: bool(read[0]), what="its first chunk")
            upstream.more.set()
            await until(lambda: all(len(each) == 2 for each in read), what="the second, of everybody")
        for caller in callers[:leavers]:
            caller.cancel()
        await asyncio.gather(*callers[:leavers], return_exceptions=True)
        upstream.go.set()
        await asyncio.gather(*callers[leavers:])
        await client.aclose()
    ledger.close()
    cache.close()
    assert upstream.asked == 1
    settled = [each for each in told if isinstance(each, Settled)]
    assert len(settled) == 4 - leavers
    assert len(told) == 4
    assert [each.cost_usd for each in settled if not each.cached] == [12e-6]
    assert all(each.cost_usd == 0.0 for each in settled if each.cached)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        assert db.execute("SELECT sum(cost_nusd) FROM entry").fetchone() == (12_000,)
    db.close()
