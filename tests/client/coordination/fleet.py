"""Several real services of one account on a real engine, and a host of the test's own that was there before them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic, time

import httpx

from ai_client.coordination.endpoint import Endpoint
from ai_client.coordination.lease import Lease, Moment
from ai_client.coordination.link import EngineLink
from ai_client.coordination.protocol import Terms
from ai_client.coordination.wire import Keys
from ai_client.testing import Simulator
from tests.client.coordination.engine import RealEngine, programs
from tests.client.service_rig import Rig, free_port, running_service

ACCOUNT = "test"
KEYS = Keys(ACCOUNT)
ELDER_SHARE = 30


def moment() -> Moment:
    return Moment(int(monotonic() * 1000), int(time() * 1000))


class Elder:
    """A host without requests that was there for minutes, as it says: nobody waits for the books to be sure.

    It speaks the truth but for that: nothing was held before its first call.
    """

    def __init__(self, port: int, *, account: str = ACCOUNT) -> None:
        self.keys = Keys(account)
        self.link = EngineLink(Endpoint(f"redis://127.0.0.1:{port}"), timeout_s=3.0)
        self.lease = Lease(
            "elder", "elder", share=ELDER_SHARE, floor=1, now=moment(), remembers_share=True, terms=Terms()
        )

    async def call(self) -> None:
        request = self.lease.begin(moment(), used=0, demand=0)
        if request.ticket:
            request = replace(request, view=1, ripe=True, past=1)
        (answer,) = await self.link.call(self.keys, [request])
        self.lease.end(answer, moment(), number=request.number)

    async def keep(self) -> None:
        while True:
            await self.call()
            await asyncio.sleep(0.3)


@dataclass
class Fleet:
    """What runs."""

    engine: RealEngine
    port: int
    simulator: Simulator
    services: list[Rig]


@asynccontextmanager
async def running_fleet(
    folder: Path, *, hosts: int, share: int, elder: bool = True, options: tuple[str, ...] = (), more: str = ""
) -> AsyncIterator[Fleet]:
    """Services h0, h1 … of `share` requests a minute each; `more` are further keys of [coordination]."""
    port = free_port()
    engine = RealEngine(programs()[0], folder, "--port", str(port), "--bind", "127.0.0.1", *options).start()
    try:
        async with AsyncExitStack() as stack:
            simulator = await stack.enter_async_context(Simulator())
            if elder:
                first = Elder(port)
                for _ in range(3):
                    await first.call()
                task = asyncio.create_task(first.keep())
                stack.push_async_callback(ended, task)
            services = []
            for number in range(hosts):
                place = folder / f"h{number}"
                place.mkdir()
                extra = (
                    f"rate_limit = {share}\n[coordination]\nendpoint = redis://127.0.0.1:{port}\n"
                    f"account = {ACCOUNT}\nhost = h{number}\n{more}"
                )
                services.append(
                    await stack.enter_async_context(running_service(place, simulator, extra=extra))
                )
            yield Fleet(engine, port, simulator, services)
    finally:
        engine.stop()


async def ended(task: asyncio.Task[None]) -> None:
    """Cancels a task and waits for its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def ask(rig: Rig, *, text: str = "hello", timeout_s: float = 20.0) -> int:
    """One request; its status, or 0 where no answer came in time."""
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": text}]}
    async with rig.client() as client:
        try:
            answer = await client.post("/v1/chat/completions", json=body, timeout=timeout_s)
        except httpx.TimeoutException:
            return 0
    return answer.status_code


async def coordination(rig: Rig) -> dict[str, object]:
    """What the status page has of it."""
    async with rig.client() as client:
        told: dict[str, object] = (await client.get("/status.json")).json()["coordination"]
    return told
