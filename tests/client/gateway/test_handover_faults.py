"""A hand-over that ends anywhere leaves somebody serving: each step at which the next process may die or misbehave."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from ai_client.testing import Simulator, SimulatorOptions
from tests.client.gateway.test_handover import (
    CHAT,
    MAIN,
    Manager,
    lay_release,
    managed_service,
    manager,
    serving_pid,
)
from tests.client.service_rig import DEADLINE_S, Rig, until

__all__ = ["manager"]

pytestmark = pytest.mark.slow

_TAKE = """\
import json, os, socket, sys, time
will = json.loads(os.environ["AI_CLIENT_HANDOVER"])
channel = socket.socket(fileno=will["sockets"]["channel"])
def say(text):
    channel.sendall(text.encode() + b"\\n")
def hear():
    text = b""
    while not text.endswith(b"\\n"):
        text += channel.recv(1) or sys.exit("nobody there")
"""
_READY = _TAKE + "say(json.dumps({'ready': True, 'pid': os.getpid()}))\n"
#: What a next process may do instead of serving, in the order in which it would.
STEPS = {
    "ends before it takes anything": "",
    "ends with an error": "raise SystemExit('broken')\n",
    "takes the channel and ends": _TAKE,
    "says nonsense": _TAKE + "say('nonsense')\nhear()\n",
    "says that it is not ready": _TAKE + "say(json.dumps({'ready': False}))\nhear()\n",
    "says a list": _TAKE + "say('[]')\nhear()\n",
    "says ready and ends": _READY,
    "says ready and is killed": _READY + "os.kill(os.getpid(), 9)\n",
    "says ready and closes the channel": _READY + "channel.close()\ntime.sleep(5)\n",
    "hears go and ends": _READY + "hear()\n",
    "hears go and says nonsense": _READY + "hear()\nsay('nonsense')\nhear()\n",
    "hears go and says that it does not serve": _READY
    + "hear()\nsay(json.dumps({'serving': False}))\nhear()\n",
}


async def test_whatever_step_the_next_process_ends_at_somebody_serves(
    tmp_path: Path, manager: Manager
) -> None:
    """The reload says why; the old process answers on, on both sockets, and hands over to a release that works."""
    async with Simulator() as simulator, managed_service(tmp_path, simulator) as rig:
        for number, (step, text) in enumerate(STEPS.items()):
            lay_release(tmp_path, f"faulty-{number}", text)
            done = await rig.command("reload", "--json")
            assert done.code == 1, step
            assert "the next process" in done.out + done.err, step
            async with asyncio.timeout(DEADLINE_S), rig.client() as client, rig.tcp_client() as outside:
                body = CHAT | {"seed": number}
                assert (await client.post("/v1/chat/completions", json=body)).status_code == 200, step
                assert (await outside.get("/v1/models")).status_code == 200, step
                assert await serving_pid(client) == rig.process.pid, step
            assert rig.accepts(), step
            assert manager.main_pid() is None, step
        lay_release(tmp_path, "sound")
        done = await rig.command("reload", "--json")
        assert done.code == 0, done.err
        assert manager.main_pid() == done.json()["pid"]


async def test_the_old_process_serves_on_where_the_next_one_is_killed_while_a_stream_ends(
    tmp_path: Path, manager: Manager
) -> None:
    """The manager starts another one only when all of this one is gone. What the killed one sent counts."""
    async with (
        Simulator(SimulatorOptions(token_ms=50)) as simulator,
        # The stream ends within half of it, however long the next process takes to start.
        managed_service(tmp_path, simulator, extra="rate_limit = 4", drain_s=60) as rig,
        rig.client() as client,
    ):
        body = CHAT | {"stream": True, "max_tokens": 200}
        async with client.stream("POST", "/v1/chat/completions", json=body) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            lay_release(tmp_path, "two")
            pid = (await rig.command("reload", "--json")).json()["pid"]
            async with rig.client() as fresh:
                assert (await fresh.post("/v1/chat/completions", json=CHAT | {"seed": 1})).status_code == 200
            os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(3), rig.client() as fresh:
                assert (await fresh.get("/status.json")).json()["limits"]["rpm_used"] == 2
                assert await serving_pid(fresh) == rig.process.pid
                answer = await fresh.post("/v1/chat/completions", json=CHAT | {"seed": 2})
                assert answer.status_code == 200
            rest = [line async for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        await client.aclose()
        async with asyncio.timeout(DEADLINE_S):
            assert await rig.process.wait() == 0
    assert manager.main_pid() == pid


#: A disk that is full where the next process opens its ledger; the old one has all files that it needs.
NO_LEDGER = """\
import errno
from ai_client.ledger import ledger
def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")
ledger.LedgerFile = full
"""


@pytest.mark.parametrize("daily_usd", [None, 100], ids=["no budget", "a hard budget"])
async def test_a_next_process_that_would_refuse_everybody_does_not_take_over(
    tmp_path: Path, manager: Manager, daily_usd: float | None
) -> None:
    """Without its ledger it could keep no hard budget: the reload says why, and the old process answers on."""
    budget = "" if daily_usd is None else f"[budget]\ndaily_usd = {daily_usd}"
    extra = f"rate_limit = 600000\n{budget}"
    async with Simulator() as simulator, managed_service(tmp_path, simulator, extra=extra) as rig:
        async with rig.tcp_client() as client:
            assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
            lay_release(tmp_path, "two", NO_LEDGER + MAIN)
            done = await rig.command("reload", "--json")
            assert done.code == (0 if daily_usd is None else 1)
            assert ("its ledger can't be opened" in done.json().get("error", "")) == (daily_usd is not None)
        async with rig.tcp_client() as client:
            answer = await client.post("/v1/chat/completions", json=CHAT | {"seed": 2})
            assert answer.status_code == 200
    assert (manager.main_pid() is None) == (daily_usd is not None)


async def test_a_reload_goes_on_where_its_caller_leaves(tmp_path: Path, manager: Manager) -> None:
    """Half a hand-over would leave nobody serving. Several that are asked for at once are one after another."""
    async with Simulator() as simulator, managed_service(tmp_path, simulator) as rig:
        lay_release(tmp_path, "two")
        async with rig.client() as leaving:
            tasks = [asyncio.create_task(leaving.post("/control/reload")) for _ in range(3)]
            await until(
                lambda: any("RELOADING=1" in line for line in manager.listen()), what="a reload to begin"
            )
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: manager.main_pid() is not None, what="the next process to serve")
        async with rig.client() as client:
            assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
            assert await serving_pid(client) == manager.main_pid() != rig.process.pid


async def last_of(lines: AsyncIterator[str]) -> str:
    """After all the others."""
    return [line async for line in lines][-1]


def metrics_of(rig: Rig) -> str:
    """As Prometheus gets them."""
    return httpx.get(f"http://127.0.0.1:{rig.metrics_port}/metrics", timeout=5).text


@pytest.mark.parametrize("releases", [["two"], ["two", "three"]], ids=["one upgrade", "two upgrades"])
async def test_the_callers_of_a_process_that_stands_after_it_has_handed_over_see_an_end(
    tmp_path: Path, manager: Manager, releases: list[str]
) -> None:
    """The manager's watchdog is for the main process alone: the next process ends it, and says so.

    Also where that one has handed over itself, and has no callers of its own.
    """
    async with (
        Simulator(SimulatorOptions(token_ms=50)) as simulator,
        managed_service(tmp_path, simulator, watchdog_s=6) as rig,
        rig.client() as client,
    ):
        body = CHAT | {"stream": True, "max_tokens": 2000}
        async with client.stream("POST", "/v1/chat/completions", json=body) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            for release in releases:
                lay_release(tmp_path, release)
                assert (await rig.command("reload")).code == 0
            os.kill(rig.process.pid, signal.SIGSTOP)
            with pytest.raises(httpx.TransportError):
                await asyncio.wait_for(last_of(lines), DEADLINE_S)
        async with asyncio.timeout(DEADLINE_S):
            assert await rig.process.wait() == -signal.SIGKILL
        async with rig.client() as fresh:
            assert (await fresh.post("/v1/chat/completions", json=CHAT)).status_code == 200
        by_main = len(releases) == 1
        assert f"ai_client_gateway_predecessors_ended_total {by_main:.1f}" in metrics_of(rig)
        logged = "".join(path.read_text() for path in (tmp_path / "log").glob("ai-client-*.jsonl"))
        [event] = [line for line in logged.splitlines() if "predecessor_stands" in line]
        assert f'"pid":{rig.process.pid}' in event.replace(" ", "")
    assert manager.main_pid() is not None


#: A release that does not show life: the first ones did not, and this stands for them.
SHOWS_NO_LIFE = """\
from ai_client.gateway.process.handover import Successor
go = Successor.go
async def go_as_before(self, window, *, beats):
    await go(self, window, beats=False)
Successor.go = go_as_before
Successor.beat = lambda self: None
"""


@pytest.mark.parametrize("program", [MAIN, SHOWS_NO_LIFE + MAIN], ids=["beats", "does not beat"])
async def test_a_process_that_ends_its_streams_is_left_alone(
    tmp_path: Path, manager: Manager, program: str
) -> None:
    """For longer than it may be silent."""
    async with (
        Simulator(SimulatorOptions(token_ms=50)) as simulator,
        managed_service(tmp_path, simulator, watchdog_s=6, program=program) as rig,
        rig.client() as client,
    ):
        body = CHAT | {"stream": True, "max_tokens": 160}
        async with client.stream("POST", "/v1/chat/completions", json=body) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            lay_release(tmp_path, "two")
            assert (await rig.command("reload")).code == 0
            rest = [line async for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        await client.aclose()
        async with asyncio.timeout(DEADLINE_S):
            assert await rig.process.wait() == 0
    assert manager.main_pid() is not None
