"""The limits in real time, as the simulator's own counter sees them, with network delay between."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from ai_client import AIAPIClient
from ai_client.contract.request import Request
from ai_client.testing import Simulator, SimulatorOptions

KEY = "hs_test_0123456789abcdef"
MOST_DELAY_S = 0.05


@asynccontextmanager
async def delaying_proxy(port: int, *, most_s: float, dice: random.Random) -> AsyncIterator[int]:
    """A way to `port` on which each packet upstream takes up to `most_s` longer; the port to use instead."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, delay_s: float) -> None:
            while data := await source.read(65536):
                await asyncio.sleep(dice.uniform(0, delay_s))
                sink.write(data)
            sink.close()

        await asyncio.gather(
            pump(reader, up_writer, delay_s=most_s),
            pump(up_reader, writer, delay_s=0),
            return_exceptions=True,
        )

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class Stalls:
    """Seconds in which the loop should have run and did not: in all, and the longest time."""

    def __init__(self) -> None:
        self.total_s = self.longest_s = 0.0

    async def watch(self, every_s: float = 0.01) -> None:
        """Counts until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + every_s
            await asyncio.sleep(every_s)
            late_s = loop.time() - due_s
            self.total_s += late_s if late_s > every_s else 0.0
            self.longest_s = max(self.longest_s, late_s)


def fullest(arrivals: list[float], *, span_s: float = 60.0) -> int:
    """The most arrivals in any half-open span of time."""
    return max(bisect_left(arrivals, at_s + span_s) - index for index, at_s in enumerate(arrivals))


@pytest.mark.slow
async def test_the_limit_holds_and_is_used_in_real_time() -> None:
    """A minute and what follows of it at 6,000 a minute: no minute of arrivals over it, no 429, at least 99 % used.

    Twice the client is replaced by another one, which takes the window over: in the midst of the first burst, and
    while the window is full. Time in which the machine ran nothing of this process is not the limiter's: it is
    measured beside, and the delay leaves room for it below the guard.
    """
    limit_rpm, parts_s = 6000, (2.0, 40.0, 68.0)
    dice = random.Random(3)  # noqa: S311 - a seeded run
    async with (
        Simulator(SimulatorOptions(limit_rpm=limit_rpm)) as upstream,
        delaying_proxy(upstream.port, most_s=MOST_DELAY_S, dice=dice) as port,
    ):
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        url = f"http://127.0.0.1:{port}/v1"
        state: dict[str, object] = {}
        stalls = Stalls()
        watching = asyncio.ensure_future(stalls.watch())
        for part_end_s in parts_s:
            async with AIAPIClient(KEY, url, 60, limit_rpm) as client:
                client.restore(state)
                await _keep_busy(client, until_s=started_s + part_end_s)
                state = client.snapshot()
        watching.cancel()
    arrivals = sorted(arrival.at_s for arrival in upstream.arrivals)
    accepted = sorted(arrival.at_s for arrival in upstream.arrivals if arrival.status == 200)
    # The guard is for 100 ms of delay. A stall beyond what the proxy leaves of that is more delay than was promised:
    # by so much a minute may be shorter, and a provider may then refuse.
    excess_s = max(0.0, stalls.longest_s - (0.1 - MOST_DELAY_S))
    assert fullest(arrivals, span_s=60.0 - excess_s) <= limit_rpm
    # With all of it used, the first request beyond the limit comes a minute after the first one.
    used = 60.0 / (accepted[limit_rpm] - accepted[0] - stalls.total_s)
    print(
        f"\nfullest minute {fullest(arrivals)} of {limit_rpm}, {used:.2%} used, longest stall {stalls.longest_s:.3f} s"
    )
    if excess_s == 0.0:
        assert len(accepted) == len(arrivals)
        assert used >= 0.99


async def _keep_busy(client: AIAPIClient, *, until_s: float) -> None:
    """As many requests as the client lets through until then; those that wait for more are cancelled."""
    loop = asyncio.get_running_loop()
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}

    async def work() -> None:
        while loop.time() < until_s:
            await client.send(Request(endpoint="chat/completions", body=body))

    with suppress(TimeoutError):
        async with asyncio.timeout_at(until_s):
            await asyncio.gather(*(work() for _ in range(60)), return_exceptions=True)
