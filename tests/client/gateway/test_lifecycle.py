"""What a process does again and again, and how its tasks end with it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from ai_client.gateway.http.server import Server
from ai_client.gateway.http.shared import Bounds
from ai_client.gateway.process.lifecycle import Lifecycle
from ai_client.platform.clock import ManualClock
from tests.client.gateway.echo_app import echo
from tests.client.gateway.gateway_socket import served
from tests.client.service_rig import until

QUICK = Bounds(tick_s=0.001)


def _faults() -> list[dict[str, Any]]:
    """What the running loop is told of from now on."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    return told


async def test_a_tick_that_fails_is_told_and_the_next_one_comes(tmp_path: Path) -> None:
    """Slow callers are still closed, and systemd still hears of this process."""
    faults, ticks = _faults(), 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        raise OSError("no descriptor is left")

    async with served(echo, tmp_path / "socket", QUICK) as server:
        server.on_tick = tick
        await until(lambda: ticks > 3, what="ticks")
    assert [str(each["exception"]) for each in faults] == ["no descriptor is left"] * ticks


async def test_a_server_that_has_drained_leaves_nothing_to_the_loop() -> None:
    """Also where it was told to end in the moment in which it began."""
    before = asyncio.all_tasks()
    server = Server(echo, wall_clock=time.time, bounds=QUICK)
    ticks: list[None] = []
    server.on_tick = lambda: ticks.append(None)
    await server.start([])
    await server.drain(limit_s=0)
    assert asyncio.all_tasks() == before
    await server.start([])
    await until(lambda: len(ticks) > 1, what="ticks of a server that goes on after all")
    await server.drain(limit_s=0)


async def test_of_several_things_to_do_with_a_tick_one_that_fails_keeps_no_other() -> None:
    """Each is done, before and behind it."""
    faults, done = _faults(), list[str]()
    life = Lifecycle({}, clock=ManualClock())
    life.on_tick_too(lambda: done.append("before"))
    life.on_tick_too(lambda: done.remove("what is not there"))
    life.on_tick_too(lambda: done.append("behind"))
    life.on_tick()
    await asyncio.sleep(0)
    assert done == ["before", "behind"]
    assert [type(each["exception"]) for each in faults] == [ValueError]


async def test_tasks_have_ended_when_their_end_was_waited_for() -> None:
    """What they close in their `finally` is closed, also of one that has not begun."""
    life, closed = Lifecycle({}, clock=ManualClock()), list[str]()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    begun = life.in_background(work())
    await asyncio.sleep(0)
    tasks = (begun, life.in_background(work()))
    await life.end_tasks()
    assert all(task.cancelled() for task in tasks)
    assert closed == ["closed"]
