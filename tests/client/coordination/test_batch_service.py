"""Real services, workers and commands that share batches over a real engine, and are killed at any time."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import signal
import sys
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
from tests.client.service_rig import TEST_KEY, Rig, free_port, running_service

_DEADLINE_S = 60.0
_AT_ONCE = 8
_PAGE = Path(__file__).parents[3] / "docs/how-to/coordination.md"


@dataclass
class _Fleet:
    """Hosts h0, h1 … of one account; `works`: whether their services have workers."""

    folder: Path
    simulator: Simulator
    works: bool
    port: int = field(default_factory=free_port)
    engine: RealEngine = field(init=False)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    hosts: dict[str, Rig] = field(default_factory=dict)
    workers: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    def begin(self) -> None:
        self.engine = RealEngine(
            programs()[0], self.folder, "--port", str(self.port), "--bind", "127.0.0.1"
        ).start()

    async def start(self, host: str) -> None:
        place = self.folder / host
        (place / "spool").mkdir(parents=True, exist_ok=True)
        extra = (
            f"rate_limit = 60000\n[coordination]\nendpoint = redis://127.0.0.1:{self.port}\naccount = test\n"
            f"host = {host}\n[batch]\nmode = {str(self.works).lower()}\nspool_dir = {place}/spool\n"
        )
        service = running_service(place, self.simulator, extra=extra, starts_within_s=_DEADLINE_S)
        self.hosts[host] = await self.stack.enter_async_context(service)

    async def start_worker(self, host: str) -> None:
        """One of the test's own, so that it can be killed."""
        self.workers[host] = await self.begin_command(host, "batch", "serve", "--at-once", str(_AT_ONCE))

    async def begin_command(self, host: str, *words: str) -> asyncio.subprocess.Process:
        rig = self.hosts[host]
        command = (
            "-m",
            "ai_client.cli",
            *words,
            "--config",
            str(rig.config),
            "--key-file",
            str(rig.key_file),
        )
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(sys.executable, *command, stdout=pipe, stderr=pipe)

    async def stop(self) -> None:
        for process in self.workers.values():
            if process.returncode is None:
                process.kill()
                await process.wait()
        self.engine.stop()


@asynccontextmanager
async def _fleet(
    folder: Path, *hosts: str, works: bool = True, latency_ms: float = 0
) -> AsyncIterator[_Fleet]:
    async with Simulator(SimulatorOptions(latency_ms=latency_ms)) as simulator:
        fleet = _Fleet(folder, simulator, works)
        fleet.begin()
        try:
            async with fleet.stack:
                for host in hosts:
                    await fleet.start(host)
                yield fleet
        finally:
            await fleet.stop()


def _line(number: int) -> dict[str, Any]:
    text = f"a secret of line {number}"
    body = {"model": "gpt-4.1", "max_tokens": 20, "messages": [{"role": "user", "content": text}]}
    return {"custom_id": f"line {number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def _input(path: Path, lines: int) -> Path:
    path.write_text("".join(json.dumps(_line(number)) + "\n" for number in range(1, lines + 1)))
    return path


def _answers(path: Path) -> Counter[str]:
    return Counter(json.loads(line)["custom_id"] for line in path.read_text().splitlines())


def _once(lines: int) -> Counter[str]:
    return Counter(f"line {number}" for number in range(1, lines + 1))


async def test_a_batch_is_submitted_answered_and_fetched(tmp_path: Path) -> None:
    """By the worker beside the service; each command may be given again."""
    async with _fleet(tmp_path, "h0") as fleet:
        rig = fleet.hosts["h0"]
        source, output = _input(tmp_path / "in.jsonl", 100), tmp_path / "out.jsonl"
        for _ in range(2):
            done = await rig.command("batch", "submit", str(source))
            assert (done.code, done.err) == (0, "")
            assert "in: 100 lines submitted" in done.out
        fetched = await rig.command("batch", "fetch", "in", "-o", str(output), "--wait")
        assert (fetched.code, fetched.err) == (0, "")
        assert _answers(output) == _once(100)
        again = await rig.command("batch", "fetch", "in", "-o", str(output), "--json")
        assert again.code == 0
        assert again.json()["complete"]
        told = (await rig.command("batch", "status", "--json")).json()["batches"]
        assert [(each["name"], each["stage"], each["lines"]) for each in told] == [("in", "fetched", 100)]
        assert "fetched before" in (await rig.command("batch", "submit", str(source))).out
        other = await rig.command("batch", "fetch", "in", "-o", str(tmp_path / "other.jsonl"))
        assert other.code == 2
        assert f"were fetched to h0:{output}" in other.err


async def test_the_commands_of_the_page_work_as_they_are_there(tmp_path: Path) -> None:
    program = "sudo /opt/ai-client/bin/ai-client "
    typed = [line for line in _PAGE.read_text("utf-8").splitlines() if line.startswith(f"{program}batch")]
    async with _fleet(tmp_path, "h0") as fleet:
        _input(tmp_path / "requests.jsonl", 5)
        for line in typed:
            words = line.removeprefix(program).split()
            there = [str(tmp_path / word) if word.endswith(".jsonl") else word for word in words]
            done = await fleet.hosts["h0"].command(*there)
            assert (done.code, done.err) == (0, ""), line
        assert _answers(tmp_path / "answers.jsonl") == _once(5)


async def test_bad_lines_and_failures_are_told_in_the_errors_file(tmp_path: Path) -> None:
    async with _fleet(tmp_path, "h0") as fleet:
        rig, output = fleet.hosts["h0"], tmp_path / "out.jsonl"
        source = _input(tmp_path / "in.jsonl", 3)
        unknown = {**_line(5), "body": {"model": "no-such-model", "messages": []}}
        with source.open("a") as file:
            file.write(f"no JSON\n\n{json.dumps(unknown)}\n")
        await rig.command("batch", "submit", str(source), "--name", "mixed")
        fetched = await rig.command("batch", "fetch", "mixed", "-o", str(output), "--wait")
        assert fetched.code == 1
        assert "3 answered, 2 failed" in fetched.out
        errors = [json.loads(line) for line in (tmp_path / "out.jsonl.errors").read_text().splitlines()]
        assert {each["id"] for each in errors} == {"batch_req_4", "batch_req_6"}


async def test_a_batch_that_no_host_takes_says_so_after_two_minutes(tmp_path: Path) -> None:
    """By the engine's clock. `status` and `fetch` tell, with the remedy, until a host takes some."""
    async with _fleet(tmp_path, "h0", works=False) as fleet:
        rig, output = fleet.hosts["h0"], tmp_path / "out.jsonl"
        await rig.command("batch", "submit", str(_input(tmp_path / "in.jsonl", 3)))
        told = await rig.command("batch", "status")
        assert "no host has taken" not in told.out
        with redis.Redis(port=fleet.port) as operator:
            (batch,) = operator.hvals("{ai-client:test}.batches")
            began_ms = (operator.time()[0] - 121) * 1000
            operator.hset(f"{{ai-client:test}}.batch.{batch.decode()}", "waits_since", began_ms)
        told = await rig.command("batch", "status")
        assert "in: no host has taken any of its lines for 12" in told.out
        assert "set `mode = true` of [batch] on at least one host" in told.out
        (view,) = (await rig.command("batch", "status", "--json")).json()["batches"]
        assert 121 <= view["unasked_s"] < 200
        fetched = await rig.command("batch", "fetch", "in", "-o", str(output))
        assert fetched.code == 3
        assert "no host has taken" in fetched.err
        waiting = await fleet.begin_command("h0", "batch", "fetch", "in", "-o", str(output), "--wait")
        assert waiting.stderr is not None
        async with asyncio.timeout(_DEADLINE_S):
            while b"no host has taken" not in await waiting.stderr.readline():
                pass
        await fleet.start_worker("h0")
        async with asyncio.timeout(_DEADLINE_S):
            assert await waiting.wait() == 0
        assert "no host has taken" not in (await rig.command("batch", "status")).out


async def test_the_commands_say_what_is_missing(tmp_path: Path) -> None:
    """Without an engine, without a batch of that name, with another input, and with another host's key."""
    async with _fleet(tmp_path, "h0", works=False) as fleet:
        rig, source = fleet.hosts["h0"], _input(tmp_path / "in.jsonl", 3)
        none = await rig.command("batch", "fetch", "in", "-o", str(tmp_path / "out.jsonl"))
        assert (none.code, none.err) == (2, "there is no batch 'in' in the engine; there are: none\n")
        assert (await rig.command("batch", "status")).out == "no shared batches\n"
        assert (await rig.command("batch", "submit", str(source))).code == 0
        unfinished = await rig.command("batch", "fetch", "in", "-o", str(tmp_path / "out.jsonl"))
        assert unfinished.code == 3
        misnamed = await rig.command("batch", "submit", str(source), "--name", "a name")
        assert misnamed.code == 2
        assert misnamed.err.startswith("--name: 'a name': write up to 100 letters")
        _input(source, 4)
        changed = await rig.command("batch", "submit", str(source))
        assert changed.code == 2
        assert "another input" in changed.err
        rig.key_file.write_text("hs_test_another_key_0123\n")
        for words in (("submit", str(source)), ("fetch", "in", "-o", str(tmp_path / "out.jsonl"))):
            unknown = await rig.command("batch", *words)
            assert unknown.code == 2
            assert "none of the keys that it was sealed with" in unknown.err
        rig.set_config(fleet.simulator.base_url, "")
        alone = await rig.command("batch", "submit", str(source))
        assert alone.code == 2
        assert "[coordination] endpoint: is not set" in alone.err


async def test_a_batch_is_cancelled_and_discarded(tmp_path: Path) -> None:
    """No line is sent any more; what is answered can be fetched, unless it is discarded."""
    async with _fleet(tmp_path, "h0", works=False) as fleet:
        rig, output = fleet.hosts["h0"], tmp_path / "out.jsonl"
        for name in ("first", "second"):
            await rig.command("batch", "submit", str(_input(tmp_path / "in.jsonl", 50)), "--name", name)
        assert (await rig.command("batch", "cancel", "first")).code == 0
        assert (await rig.command("batch", "cancel", "second", "--discard")).code == 0
        await fleet.start_worker("h0")
        fetched = await rig.command("batch", "fetch", "first", "-o", str(output), "--wait", "--json")
        assert fetched.json()["answered"] == 0
        assert _sent(fleet) == 0
        told = (await rig.command("batch", "status", "--json")).json()["batches"]
        assert [each["name"] for each in told] == ["first"]
        again = await rig.command("batch", "cancel", "first")
        assert again.out == "nothing of first is left to cancel: all of it is answered and fetched\n"


async def _metrics(fleet: _Fleet, host: str) -> str:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"http://127.0.0.1:{fleet.hosts[host].metrics_port}/metrics")).text


async def test_a_batch_host_shows_how_far_shared_batches_are(tmp_path: Path) -> None:
    """On its status page and in its metrics; a host that is none says nothing of them."""
    async with _fleet(tmp_path, "h0") as fleet:
        await fleet.hosts["h0"].command("batch", "submit", str(_input(tmp_path / "in.jsonl", 30)))
        async with fleet.hosts["h0"].client() as client:
            shown: list[dict[str, Any]] = []
            async with asyncio.timeout(_DEADLINE_S):
                while not shown or shown[0]["done"] < 30:
                    shown = (await client.get("/status.json")).json()["shared_batches"] or []
            text = await _metrics(fleet, "h0")
    assert shown == [{"name": "in", "stage": "done", "lines": 30, "done": 30, "failed": 0, "fetched": 0}]
    assert 'ai_client_shared_batches{stage="done"} 1.0' in text
    assert 'ai_client_shared_batch_lines{state="done"} 30.0' in text
    (tmp_path / "alone").mkdir()
    async with _fleet(tmp_path / "alone", "h1", works=False) as fleet, fleet.hosts["h1"].client() as client:
        assert (await client.get("/status.json")).json()["shared_batches"] is None
        assert "shared_batch" not in await _metrics(fleet, "h1")


async def test_a_command_says_why_it_waits_and_does_not_wait_where_it_is_refused(tmp_path: Path) -> None:
    """Two minutes of silence look like a hang, and a wrong password does not pass."""
    async with _fleet(tmp_path, "h0", works=False) as fleet:
        rig, source = fleet.hosts["h0"], _input(tmp_path / "in.jsonl", 3)
        with redis.Redis(port=fleet.port) as operator:
            operator.execute_command("CONFIG", "SET", "requirepass", "another")
        refused = await rig.command("batch", "submit", str(source))
        assert refused.code == 4
        assert "wants a user and a password" in refused.err
        fleet.engine.stop()
        waiting = await fleet.begin_command("h0", "batch", "submit", str(source))
        assert waiting.stderr is not None
        assert waiting.stdout is not None
        told = (await waiting.stderr.readline()).decode()
        assert told.startswith(f"coordination engine 127.0.0.1:{fleet.port}: can't be reached")
        assert told.endswith("trying again for two minutes\n")
        fleet.engine.start()
        assert "in: 3 lines submitted" in (await waiting.stdout.read()).decode()
        assert await waiting.wait() == 0


async def test_the_engine_has_no_prompt_no_answer_and_no_key(tmp_path: Path) -> None:
    """Every byte of it is looked at; hosts are the documented user, who may do just what is needed."""
    lines = 40
    async with _fleet(tmp_path, "h0", works=False) as fleet:
        rig, output = fleet.hosts["h0"], tmp_path / "out.jsonl"
        looker = redis.Redis(port=fleet.port, username="looker", password="looks")
        with redis.Redis(port=fleet.port) as operator:
            operator.execute_command("ACL", "SETUSER", "looker", "on", ">looks", "~*", "&*", "+@all")
            operator.execute_command(
                "ACL", "SETUSER", "default", "resetkeys", "resetchannels", *_documented_rights()
            )
        submitted = await rig.command("batch", "submit", str(_input(tmp_path / "in.jsonl", lines)))
        assert submitted.code == 0, submitted.err
        before = _contents(looker)
        await fleet.start_worker("h0")
        while (await rig.command("batch", "status", "in", "--json")).json()["batches"][0]["done"] < lines:
            pass
        after = _contents(looker)
        fetched = await rig.command("batch", "fetch", "in", "-o", str(output))
        assert fetched.code == 0, fetched.err
        answer = json.loads(output.read_text().splitlines()[0])["response"]["body"]
        text = answer["choices"][0]["message"]["content"].encode()
        assert len(before) > lines * 40
        assert len(after) > lines * len(text)
        for told in (b"secret", b"gpt-4.1", b"choices", b"custom_id", text[:12], TEST_KEY.encode()):
            assert told not in before + after
        looker.close()


def _contents(engine: redis.Redis) -> bytes:
    """All keys and what is in them."""
    found: list[bytes] = []
    for name in engine.keys("*"):
        kind = engine.type(name)
        if kind == b"hash":
            found += [part for pair in engine.hgetall(name).items() for part in pair]
        elif kind == b"string":
            found.append(engine.get(name))
        elif kind == b"stream":
            found += [repr(entry).encode() for entry in engine.xrange(name)]
        found.append(name)
    return b"\n".join(found)


def _documented_rights() -> list[str]:
    (line,) = [line for line in _PAGE.read_text("utf-8").splitlines() if line.startswith("user fleet on")]
    return line.split()[4:]


@pytest.mark.slow
async def test_every_line_is_answered_once_whoever_is_killed(tmp_path: Path) -> None:
    """SIGKILL of workers, whole hosts, the submission and the fetch: at most what was in flight is sent again."""
    lines, kills, pick = 600, 9, random.Random(1)  # noqa: S311 - moments, not secrets
    async with _fleet(tmp_path, "h0", "h1", "h2", works=False, latency_ms=300) as fleet:
        source, output = _input(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
        for host in fleet.hosts:
            await fleet.start_worker(host)
        await _until_done(fleet, pick, "batch", "submit", str(source))
        fetch = ("batch", "fetch", "in", "-o", str(output), "--wait")
        fetching = asyncio.create_task(_until_done(fleet, pick, *fetch))
        for number in range(kills):
            await asyncio.sleep(pick.uniform(0.3, 1.0))
            await _kill(fleet, pick.choice(sorted(fleet.workers)), with_service=number % 3 == 2)
        async with asyncio.timeout(240):
            await fetching
        assert _answers(output) == _once(lines)
        assert lines <= _sent(fleet) <= lines + kills * _AT_ONCE


def _sent(fleet: _Fleet) -> int:
    """Lines that reached the upstream."""
    return sum(each.path.endswith("/chat/completions") for each in fleet.simulator.arrivals)


async def _until_done(fleet: _Fleet, pick: random.Random, *words: str) -> None:
    """A command that is killed twice, and given again until it is done."""
    for kills in itertools.count():
        process = await fleet.begin_command("h0", *words)
        if kills < 2:
            await asyncio.sleep(pick.uniform(0.5, 2.5))
            if process.returncode is None:
                process.kill()
        _, err = await process.communicate()
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, err
            return


async def _kill(fleet: _Fleet, host: str, *, with_service: bool) -> None:
    """With SIGKILL, whatever it is at; and starts it again."""
    victims = [fleet.workers[host], *([fleet.hosts[host].process] if with_service else [])]
    for process in victims:
        process.kill()
    for process in victims:
        await process.wait()
    if with_service:
        await fleet.start(host)
    await fleet.start_worker(host)
