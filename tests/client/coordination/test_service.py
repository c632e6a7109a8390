"""Real services that share one quota over a real engine."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import redis

from ai_client.testing import Simulator
from ai_client.testing.faults import Fault
from tests.client.coordination.engine import RealEngine
from tests.client.coordination.fleet import ELDER_SHARE, ask, coordination, running_fleet
from tests.client.service_rig import TEST_KEY, Rig, running_service, until

_AMPLE_SHARE = 60_000
_SHARE = 20


async def _until(rig: Rig, what: str, wanted: object, *, deadline_s: float = 15.0) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + deadline_s
    while (told := await coordination(rig))[what] != wanted:
        assert loop.time() < end_s, f"{what} never was {wanted}: {told}"
        await asyncio.sleep(0.1)
    return told


async def test_a_busy_host_uses_what_others_leave_and_all_stay_below_the_limit(tmp_path: Path) -> None:
    """What one host sends is more than its share, and what all send is no more than all shares."""
    hosts = 3
    async with running_fleet(tmp_path, hosts=hosts, share=_SHARE) as fleet:
        for rig in fleet.services:
            await _until(rig, "mode", "leased")
        busy = fleet.services[0]
        most = ELDER_SHARE + hosts * _SHARE
        asked = [asyncio.create_task(ask(busy, text=str(number))) for number in range(3 * _SHARE)]
        loop = asyncio.get_running_loop()
        end_s = loop.time() + 55
        while int(str((await coordination(busy))["rpm"])) <= 1.5 * _SHARE:
            assert loop.time() < end_s, f"it borrowed nothing: {await coordination(busy)}"
            await asyncio.sleep(0.5)
        await asyncio.gather(*asked)
        arrivals = [arrival.at_s for arrival in fleet.simulator.arrivals]
        assert max(sum(at_s - 60 < each <= at_s for each in arrivals) for at_s in arrivals) <= most
        told = await coordination(busy)
        assert (told["hosts"], told["fleet_rpm"]) == (hosts + 1, most)


async def test_a_fleet_whose_engine_is_killed_goes_on_and_says_so(tmp_path: Path) -> None:
    """Callers get answers; log, metric, status page and health check tell."""
    async with running_fleet(tmp_path, hosts=1, share=_SHARE) as fleet:
        (rig,) = fleet.services
        await _until(rig, "mode", "leased")
        fleet.engine.stop()
        loop = asyncio.get_running_loop()
        end_s = loop.time() + 30
        while (await coordination(rig))["trouble"] is None:
            assert loop.time() < end_s, "it never noticed that the engine is gone"
            await asyncio.sleep(0.2)
        assert await ask(rig) == 200
        async with rig.client() as client:
            check = (await client.get("/health")).json()["checks"]["coordination"]
        assert not check["ok"]
        assert "can't be reached" in check["detail"]
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"http://127.0.0.1:{rig.metrics_port}/metrics")).text
        assert "ai_client_quota_failures_total" in metrics
        assert "coordination_lost" in _logged(rig)


async def test_a_wrong_password_is_said_and_the_host_has_its_own_share(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("not-the-one\n")
    async with running_fleet(
        tmp_path,
        hosts=1,
        share=_SHARE,
        elder=False,
        options=("--user", "fleet", "on", ">another", "~*", "&*", "+@all"),
        more=f"user = fleet\npassword_file = {password}\n",
    ) as fleet:
        (rig,) = fleet.services
        told = await _until(rig, "mode", "static")
        while told["trouble"] is None:
            told = await coordination(rig)
        assert "password_file" in str(told["trouble"])
        assert "not-the-one" not in str(told)
        assert await ask(rig) == 200


async def test_a_429_on_one_host_holds_the_others_back(tmp_path: Path) -> None:
    """The upstream refuses one request of one host: the other one sends nothing before the pause is over."""
    async with running_fleet(tmp_path, hosts=2, share=_SHARE) as fleet:
        first, second = fleet.services
        for number, rig in enumerate(fleet.services):
            await _until(rig, "mode", "leased")
            assert await ask(rig, text=f"before {number}") == 200
        fleet.simulator.faults.add(Fault("status", 429, retry_after="3"))
        refused = asyncio.create_task(ask(first, text="refused"))
        loop = asyncio.get_running_loop()
        await until(lambda: fleet.simulator.counts.by_status[429] == 1, what="the refusal")
        began_s = loop.time()
        while await _count(second, "pauses_heard") < 1:
            assert loop.time() < began_s + 2.5, "the pause was told too late to be kept"
            await asyncio.sleep(0.02)
        assert await ask(second, text="held back") == 200
        assert loop.time() - began_s >= 2.9
        assert await refused == 200
        assert fleet.simulator.counts.by_status[429] == 1


async def test_a_rotated_password_is_taken_by_a_reload(tmp_path: Path) -> None:
    """Nothing restarts, no lease is lost; the one that is taken away afterwards is not missed."""
    password = tmp_path / "password"
    password.write_text("the-first\n")
    async with running_fleet(
        tmp_path,
        hosts=1,
        share=_SHARE,
        elder=False,
        options=("--user", "fleet", "on", ">the-first", "~*", "&*", "+@all"),
        more=f"user = fleet\npassword_file = {password}\n",
    ) as fleet:
        (rig,) = fleet.services
        await _until(rig, "trouble", None)
        with redis.Redis(unix_socket_path=str(fleet.engine.socket)) as operator:
            operator.execute_command("ACL", "SETUSER", "fleet", ">the-next")
            password.write_text("the-next\n")
            done = await rig.command("reload", "--json")
            assert not done.json()["restart_needed"]
            operator.execute_command("ACL", "SETUSER", "fleet", "<the-first")
            operator.execute_command("CLIENT", "KILL", "USER", "fleet")
            # Those of calls and of pauses, let in by the new password alone.
            await until(lambda: _uses(operator) == 2, what="connections with the new password", deadline_s=30)
        assert await ask(rig) == 200
        await _until(rig, "trouble", None)


def _uses(operator: redis.Redis) -> int:
    """Connections of the fleet's user that are open."""
    return sum(each["user"] == "fleet" for each in operator.client_list())


async def test_the_fleet_is_shown_from_any_host_and_who_is_gone_is_forgotten(tmp_path: Path) -> None:
    """Each host as it reports itself: version, configuration, key, health, counters, where its quota comes from."""
    async with running_fleet(tmp_path, hosts=2, share=_SHARE, elder=False) as fleet:
        first, second = fleet.services
        for rig in fleet.services:
            await _until(rig, "mode", "leased")
        assert await ask(second) == 200
        await _until_said(first, "h1", "requests", 1)
        told = {each["host"]: each for each in (await first.command("fleet", "--json")).json()["hosts"]}
        assert set(told) == {"h0", "h1"}
        config = hashlib.sha256((second.folder / "ai-client.conf").read_bytes()).hexdigest()
        assert (told["h1"]["config"], told["h1"]["is_well"], told["h1"]["files"]) == (config, True, "unknown")
        assert told["h1"]["key"] == hashlib.sha256(TEST_KEY.encode()).hexdigest()[: len(told["h1"]["key"])]
        spent = (await first.command("usage", "--fleet", "--json")).json()
        assert [each["host"] for each in spent["hosts"]] == ["h0", "h1"]
        shown = await second.command("fleet")
        assert [line.split()[:2] for line in shown.out.splitlines()[1:]] == [["h0", "ok"], ["h1", "ok"]]
        still = await first.command("fleet", "--forget", "h1")
        assert (still.code, "may still use its share" in still.err) == (3, True)
        unknown = await first.command("fleet", "--forget", "never-there")
        assert unknown.code == 0
        told = "never-there is forgotten; none of that name has reported, but these have: h0, h1\n"
        assert unknown.out == told
        for name in ("", " ", "a\nb"):
            misnamed = await first.command("fleet", "--forget", name)
            assert (misnamed.code, "write a host's name" in misnamed.err) == (2, True)
        periods = await first.command("usage", "--fleet", "--days", "7")
        assert (periods.code, "leave out --days" in periods.err) == (2, True)


async def _until_said(rig: Rig, host: str, what: str, least: int) -> None:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + 40
    while True:
        hosts = (await rig.command("fleet", "--json")).json()["hosts"]
        found = next((each[what] for each in hosts if each["host"] == host), 0)
        if found >= least:
            return
        assert loop.time() < end_s, f"{host} never said {what} {least}: {hosts}"
        await asyncio.sleep(0.3)


async def test_a_host_that_shares_with_none_says_so(tmp_path: Path) -> None:
    async with Simulator() as simulator, running_service(tmp_path, simulator) as rig:
        done = await rig.command("fleet")
        assert (done.code, "shares its quota with no other" in done.err) == (1, True)


def _stop(engine: RealEngine, _operator: redis.Redis) -> Callable[[], object]:
    assert engine.process is not None
    process = engine.process
    process.send_signal(signal.SIGSTOP)
    return lambda: process.send_signal(signal.SIGCONT)


def _fill(_engine: RealEngine, operator: redis.Redis) -> Callable[[], object]:
    operator.config_set("maxmemory", 1)
    return lambda: operator.config_set("maxmemory", 0)


def _demote(_engine: RealEngine, operator: redis.Redis) -> Callable[[], object]:
    operator.execute_command("REPLICAOF", "127.0.0.1", "1")
    return lambda: operator.execute_command("REPLICAOF", "NO", "ONE")


def _forbid(_engine: RealEngine, operator: redis.Redis) -> Callable[[], object]:
    operator.execute_command("ACL", "SETUSER", "default", "-eval", "-evalsha")
    return lambda: operator.execute_command("ACL", "SETUSER", "default", "+@all")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (_stop, "did not answer in time"),
        (_fill, "is out of memory"),
        (_demote, "is a replica"),
        (_forbid, "does not let this user run the script"),
    ],
    ids=["stopped", "full memory", "a replica", "no right to the script"],
)
async def test_whatever_ails_the_engine_callers_get_answers_and_it_is_told(
    tmp_path: Path, fault: Callable[[RealEngine, redis.Redis], Callable[[], object]], told: str
) -> None:
    """Nothing hangs; health check and status page name the reason; what was wrong is gone when it is mended."""
    async with running_fleet(tmp_path, hosts=1, share=_SHARE) as fleet:
        (rig,) = fleet.services
        await _until(rig, "mode", "leased")
        with redis.Redis(unix_socket_path=str(fleet.engine.socket)) as operator:
            mend = fault(fleet.engine, operator)
            try:
                loop = asyncio.get_running_loop()
                end_s = loop.time() + 40
                while told not in str((await coordination(rig))["trouble"]):
                    assert loop.time() < end_s, f"it was never told: {await coordination(rig)}"
                    await asyncio.sleep(0.2)
                assert await ask(rig) == 200
                async with rig.client() as client:
                    check = (await client.get("/health")).json()["checks"]["coordination"]
                assert (check["ok"], told in check["detail"]) == (False, True)
            finally:
                mend()
        await _until(rig, "trouble", None, deadline_s=40)
        await _until(rig, "mode", "leased", deadline_s=40)


async def test_an_engine_that_lost_its_memory_is_told(tmp_path: Path) -> None:
    """Leases go on, so nothing fails; log, metric, status page and health check say why nothing new is lent."""
    async with running_fleet(tmp_path, hosts=1, share=_SHARE, elder=False) as fleet:
        (rig,) = fleet.services
        await _until(rig, "mode", "leased")
        with redis.Redis(unix_socket_path=str(fleet.engine.socket)) as operator:
            operator.flushall()
        await until(lambda: _logged(rig).count("quota_recovering") == 2, what="both told", deadline_s=40)
        told = await coordination(rig)
        assert (told["mode"], told["recovering"], told["trouble"]) == ("leased", True, None)
        async with rig.client() as client:
            check = (await client.get("/health")).json()["checks"]["coordination"]
        assert check["ok"]
        assert "nothing new is lent" in check["detail"]
        assert await _metric(rig, "recovering") == 1
        assert await ask(rig) == 200


def _logged(rig: Rig) -> str:
    return "".join(path.read_text() for path in (rig.folder / "log").glob("ai-client-*.jsonl"))


async def test_a_slow_engine_keeps_no_caller_waiting(tmp_path: Path) -> None:
    """Each of its answers takes 2 s: leases go on, and a caller's request does not wait for one.

    The share is more than the caller can ask for meanwhile: its own limit must not make it wait, either.
    """
    async with running_fleet(tmp_path, hosts=1, share=_AMPLE_SHARE) as fleet:
        (rig,) = fleet.services
        await _until(rig, "mode", "leased")
        with redis.Redis(unix_socket_path=str(fleet.engine.socket)) as operator:
            slow = asyncio.create_task(_slow_down(operator))
            loop = asyncio.get_running_loop()
            before, end_s = await _count(rig, "calls"), loop.time() + 20
            while await _count(rig, "calls") < before + 2:
                assert loop.time() < end_s, "it does not call any more"
                assert await ask(rig, text=f"{loop.time()}", timeout_s=5) == 200
            slow.cancel()
            await asyncio.gather(slow, return_exceptions=True)
        assert (await coordination(rig))["mode"] == "leased"


async def _slow_down(operator: redis.Redis) -> None:
    """Whoever calls meanwhile gets an answer after up to 2 s."""
    while True:
        await asyncio.to_thread(operator.execute_command, "CLIENT", "PAUSE", "2000", "ALL")
        await asyncio.sleep(2.5)


async def _count(rig: Rig, what: str) -> float:
    """One of the metrics `ai_client_quota_…_total`."""
    return await _metric(rig, f"{what}_total")


async def _metric(rig: Rig, what: str) -> float:
    """One of the metrics `ai_client_quota_…`."""
    async with httpx.AsyncClient() as client:
        lines = (await client.get(f"http://127.0.0.1:{rig.metrics_port}/metrics")).text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(f"ai_client_quota_{what} "))
