"""Real services that share a budget over a real engine, and are killed at any time."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from ai_client.testing import Simulator, SimulatorOptions
from tests.client.coordination.engine import RealEngine, programs
from tests.client.coordination.fleet import ended
from tests.client.service_rig import Rig, free_port, running_service, until

#: Of gpt-4.1, by its list price.
_NUSD_A_TOKEN = 8_000
_HOSTS = 3
_DEADLINE_S = 60.0


@dataclass
class _Fleet:
    """Hosts h0, h1 …, each with a folder that outlives its services."""

    folder: Path
    simulator: Simulator
    daily_usd: float
    port: int = field(default_factory=free_port)
    engine: RealEngine = field(init=False)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    services: dict[str, Rig] = field(default_factory=dict)

    def begin(self) -> None:
        options = ("--port", str(self.port), "--bind", "127.0.0.1")
        self.engine = RealEngine(programs()[0], self.folder, *options).start()

    async def start(self, host: str, *, called: str = "") -> Rig:
        place = self.folder / host
        place.mkdir(exist_ok=True)
        extra = (
            f"rate_limit = 60000\n[coordination]\nendpoint = redis://127.0.0.1:{self.port}\naccount = test\n"
            f"host = {called or host}\n[budget]\nshared = true\ndaily_usd = {self.daily_usd}\n"
        )
        service = running_service(place, self.simulator, extra=extra, starts_within_s=_DEADLINE_S)
        self.services[host] = rig = await self.stack.enter_async_context(service)
        return rig

    async def kill(self, host: str) -> None:
        """With SIGKILL, whatever it is at."""
        process = self.services.pop(host).process
        process.kill()
        await process.wait()

    def billed_nusd(self) -> int:
        """By the upstream's own count."""
        return _NUSD_A_TOKEN * sum(
            each.tokens for each in self.simulator.arrivals if each.path.endswith("/chat/completions")
        )


@asynccontextmanager
async def _fleet(folder: Path, *, daily_usd: float) -> AsyncIterator[_Fleet]:
    # It counts tokens where it limits them.
    async with Simulator(SimulatorOptions(limit_tpm=10**9)) as simulator:
        fleet = _Fleet(folder, simulator, daily_usd)
        fleet.begin()
        try:
            async with fleet.stack:
                for number in range(_HOSTS):
                    await fleet.start(f"h{number}")
                yield fleet
        finally:
            fleet.engine.stop()


async def _ask(rig: Rig, text: str) -> tuple[int, str]:
    """One request, no part of it cached: its status, and what the answer says."""
    body = {"model": "gpt-4.1", "max_tokens": 20, "messages": [{"role": "user", "content": text}]}
    async with rig.client() as client:
        try:
            answer = await client.post("/v1/chat/completions", json=body, timeout=20.0)
        except httpx.TransportError:
            return 0, "killed"
    return answer.status_code, answer.text


async def _told(rig: Rig) -> dict[str, Any]:
    async with rig.client() as client:
        told: dict[str, Any] = (await client.get("/status.json")).json()["shared_budgets"]
    return told


async def _until_answered(fleet: _Fleet, host: str) -> None:
    """Until the books are sure, a host is granted nothing, and says so to callers."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + _DEADLINE_S
    while (found := await _ask(fleet.services[host], f"{host} {loop.time()}"))[0] != 200:
        assert loop.time() < end_s, f"{host} never was granted anything: {found}"
        await asyncio.sleep(0.2)


async def _spend(fleet: _Fleet, host: str, refused: Counter[str]) -> None:
    """One caller's requests until it is cancelled; `refused` counts those in a row that the budget refused."""
    for number in itertools.count():
        rig = fleet.services.get(host)
        status, text = (0, "") if rig is None else await _ask(rig, f"{host} {number}")
        if status != 200:
            refused[host] += status == 429 and "budget_exceeded" in text
            await asyncio.sleep(0.05)
        else:
            refused[host] = 0


async def _kill_some(fleet: _Fleet, pick: random.Random, *, times: int) -> None:
    """Kills one service after the other at random moments, and starts it again over what it left."""
    for _ in range(times):
        await asyncio.sleep(pick.uniform(0.2, 1.5))
        host = pick.choice(sorted(fleet.services))
        await fleet.kill(host)
        await fleet.start(host)


@pytest.mark.slow
async def test_a_shared_budget_is_never_overspent_whoever_is_killed(tmp_path: Path) -> None:
    """SIGKILL of services at any step while all spend, and of the engine, which comes back empty."""
    pick = random.Random(1)  # noqa: S311 - moments, not secrets
    async with _fleet(tmp_path, daily_usd=0.1) as fleet:
        for host in list(fleet.services):
            await _until_answered(fleet, host)
        refused: Counter[str] = Counter()
        spenders = [asyncio.create_task(_spend(fleet, host, refused)) for host in list(fleet.services)]
        await _kill_some(fleet, pick, times=5)
        fleet.engine.stop()
        fleet.engine.start()
        await _kill_some(fleet, pick, times=3)
        # A process that was killed waits for its part of the quota, too: an engine that forgot all lends none for 86 s.
        await until(lambda: fleet.billed_nusd() > 80_000_000, what="most of it to be spent", deadline_s=300)
        refused.clear()
        await until(
            lambda: min(refused[host] for host in fleet.services) > 20, what="an end of it", deadline_s=60
        )
        for spender in spenders:
            await ended(spender)
        assert fleet.billed_nusd() <= 100_000_000


async def test_hosts_share_a_budget_and_say_why_there_is_no_more(tmp_path: Path) -> None:
    """Each host has a part of it; without the engine it uses up what it was granted, then refuses and says why."""
    async with _fleet(tmp_path, daily_usd=0.1) as fleet:
        first = fleet.services["h0"]
        await _until_answered(fleet, "h0")
        told = await _told(first)
        assert told["budgets"][0]["limit_usd"] == 0.1
        assert 0 < told["budgets"][0]["allowed_usd"] < 0.1
        spent = (await first.command("usage", "--fleet", "--json")).json()
        assert [(each["scope"], each["limit_usd"]) for each in spent["budgets"]] == [("all", 0.1)]
        assert [each["host"] for each in spent["hosts"]] == ["h0", "h1", "h2"]
        fleet.engine.stop()
        loop = asyncio.get_running_loop()
        end_s = loop.time() + _DEADLINE_S
        while True:
            status, text = await _ask(first, f"{loop.time()}")
            if status != 200 and "can't be reached" in text:
                break
            assert loop.time() < end_s, text
        assert status == 429
        assert "hosts share the day's budget of all" in text
        assert 0 < fleet.billed_nusd() < 100_000_000
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"http://127.0.0.1:{first.metrics_port}/metrics")).text
        assert 'ai_client_budget_allowance_left_usd{period="day",scope="all"}' in metrics


async def test_a_host_with_another_name_says_what_it_waits_for(tmp_path: Path) -> None:
    """Callers that its budgets refuse meanwhile, and its health check."""
    async with _fleet(tmp_path, daily_usd=0.1) as fleet:
        await _until_answered(fleet, "h0")
        await fleet.kill("h0")
        rig = await fleet.start("h0", called="renamed")
        # It has what its ledger was granted before.
        answers = [await _ask(rig, f"another name {number}") for number in range(40)]
        text = next(text for status, text in answers if status == 429)
        for told in ("changed its engine, account or name", "three minutes", "Try again when that is over"):
            assert told in text
        async with rig.client() as client:
            check = (await client.get("/health")).json()["checks"]["coordination"]
        assert check["ok"]
        assert "changed its engine, account or name" in check["detail"]


async def test_one_host_tells_what_all_have_spent_of_a_shared_budget(tmp_path: Path) -> None:
    """Each spends about half: no host alone reaches the threshold, and of all one tells that they have."""
    async with _fleet(tmp_path, daily_usd=0.02) as fleet:
        hosts = ("h0", "h1")
        for host in hosts:
            await _until_answered(fleet, host)
        loop = asyncio.get_running_loop()
        end_s = loop.time() + _DEADLINE_S
        for number in itertools.count():
            told = [each for host in fleet.services for each in _alerts(fleet.services[host])]
            if told:
                break
            assert loop.time() < end_s, "nobody told of it"
            await _ask(fleet.services[hosts[number % 2]], f"part {number}")
        calls = set()
        with redis.Redis(port=fleet.port) as operator:
            # Each host asks every 5 s: a second one would tell by then, too.
            while len(calls) < 8:
                calls.add(operator.hget("{ai-client:test}.budgets", ""))
                await asyncio.sleep(0.05)
        alerts = [each for host in fleet.services for each in _alerts(fleet.services[host])]
        assert [(each["scope"], each["threshold"], each["limit_usd"]) for each in alerts] == [
            ("all", 0.8, 0.02)
        ]
        assert alerts[0]["by_all_hosts"]
        assert 0.016 <= alerts[0]["spent_usd"] <= 0.02


def _alerts(rig: Rig) -> list[dict[str, Any]]:
    lines = "".join(path.read_text() for path in (rig.folder / "log").glob("ai-client-*.jsonl")).splitlines()
    return [each for each in map(json.loads, lines) if each["event"] == "budget_alert"]


async def test_a_user_of_the_engine_with_the_documented_rights_may_share_budgets(tmp_path: Path) -> None:
    """The line of docs/how-to/coordination.md, as it is there."""
    rights = _documented_rights()
    async with _fleet(tmp_path, daily_usd=0.1) as fleet:
        with redis.Redis(unix_socket_path=str(fleet.engine.socket)) as operator:
            operator.execute_command("ACL", "SETUSER", "default", "resetkeys", "resetchannels", *rights)
            await _until_answered(fleet, "h0")


def _documented_rights() -> list[str]:
    lines = (Path(__file__).parents[3] / "docs/how-to/coordination.md").read_text("utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith("user fleet on")]
    return line.split()[4:]
