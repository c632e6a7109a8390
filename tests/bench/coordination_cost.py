"""What a shared quota costs each call: `python -m tests.bench.coordination_cost`.

The same client in the same process, with a fixed limit and under a lease, in turn: CPU of a whole call whose upstream
answers at once, and of a permit's life alone.
"""

import asyncio
import json
import random
import statistics
import time

import uvloop

from ai_client.admission.concurrency import AdaptiveConcurrency
from ai_client.admission.lane import Lane
from ai_client.admission.scheduler import Scheduler
from ai_client.admission.throttle import Throttle
from ai_client.admission.window import SlidingWindow
from ai_client.client import AIAPIClient
from ai_client.contract.request import Request
from ai_client.coordination.lease import Lease, Moment
from ai_client.coordination.protocol import Kind, QuotaAnswer, Terms
from ai_client.coordination.window import LeasedWindow
from ai_client.platform.clock import SystemClock
from ai_client.transport.base import PoolStatistics, WireRequest, WireResponse, WireStream

ROUNDS = 15
CALLS = 4_000
PERMITS = 40_000
LIMIT = 10**9

_BODY = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
    }
).encode()
_HEADERS = {"content-type": "application/json"}


class AtOnce:
    """An upstream that answers at once."""

    async def fetch(self, request: WireRequest) -> WireResponse:
        if request.on_sent is not None:
            request.on_sent()
        return WireResponse(200, _HEADERS, _BODY)

    async def open(self, request: WireRequest) -> WireStream:
        raise AssertionError("whole answers alone are measured here")

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(size=1, in_use=0, waiting=0)

    async def aclose(self) -> None:
        """Nothing is open."""


def boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def leased() -> LeasedWindow:
    """A window under a lease that was granted just now, on the clocks that the service has."""
    now = Moment(int(boot_s() * 1000), int(time.time() * 1000))
    lease = Lease("h", "i", share=LIMIT, floor=1, now=now, remembers_share=True, terms=Terms())
    request = lease.begin(now, used=0, demand=LIMIT)
    lease.end(QuotaAnswer(Kind.GRANTED, "e", 1, LIMIT, LIMIT, viewed=True), now, number=request.number)
    return LeasedWindow(lease, None, boot=boot_s, wall=time.time)


def window_of(*, is_leased: bool) -> SlidingWindow:
    return leased() if is_leased else SlidingWindow(limit_requests=LIMIT)


async def calls_us(*, is_leased: bool) -> float:
    """CPU µs of a whole call."""
    window = window_of(is_leased=is_leased)
    async with AIAPIClient("hs_test_0123456789abcdef", transport=AtOnce(), window=window) as client:
        body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
        request = Request(endpoint="chat/completions", body=body)
        started_s = time.process_time()
        for _ in range(CALLS):
            await client.send(request)
        return (time.process_time() - started_s) / CALLS * 1e6


async def permits_us(*, is_leased: bool) -> float:
    """CPU µs of a permit's life."""
    throttle = Throttle(full_rate_per_s=None, random_source=random.Random(1))  # noqa: S311
    lane = Lane("m", "k", throttle=throttle, concurrency=AdaptiveConcurrency(max_limit=10**6))
    scheduler = Scheduler(clock=SystemClock(), window=window_of(is_leased=is_leased), max_concurrent=10**9)
    started_s = time.process_time()
    for _ in range(PERMITS):
        permit = await scheduler.acquire(lane, tenant="t", priority=5, tokens=100)
        scheduler.sent(permit)
        scheduler.settle(permit, 50)
        scheduler.release(permit)
    return (time.process_time() - started_s) / PERMITS * 1e6


async def main() -> None:
    for name, measured in (("a whole call", calls_us), ("a permit's life", permits_us)):
        pairs = [(await measured(is_leased=False), await measured(is_leased=True)) for _ in range(ROUNDS)]
        fixed, under = (min(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(on / off for off, on in pairs)
        print(
            f"{name:16} fixed {fixed:6.2f} µs, leased {under:6.2f} µs, ratio {ratio:.3f} (median of {ROUNDS})"
        )


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
