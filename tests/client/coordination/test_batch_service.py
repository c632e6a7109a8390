"""Real services, workers and commands that share batches over a real engine, and are killed at any time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ai_client.testing import Simulator
from tests.client.coordination.engine import RealEngine, programs
from tests.client.service_rig import Rig, free_port, running_service

_DEADLINE_S = 60.0


@dataclass
class _Fleet:
    """Batch hosts h0, h1 … of one account."""

    folder: Path
    simulator: Simulator
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    engine: RealEngine = field(init=False)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    hosts: dict[str, Rig] = field(default_factory=dict)

    def begin(self) -> None:
        options = ("--port", str(self.port), "--bind", "127.0.0.1", *self.options)
        self.engine = RealEngine(programs()[0], self.folder, *options).start()

    async def start(self, host: str, *, works: bool = True) -> Rig:
        place = self.folder / host
        place.mkdir(exist_ok=True)
        extra = (
            f"rate_limit = 60000\n[coordination]\nendpoint = redis://127.0.0.1:{self.port}\naccount = test\n"
            f"host = {host}\n[batch]\nmode = {str(works).lower()}\nspool_dir = {place}/spool\n"
        )
        service = running_service(place, self.simulator, extra=extra, starts_within_s=_DEADLINE_S)
        self.hosts[host] = rig = await self.stack.enter_async_context(service)
        return rig


@asynccontextmanager
async def _fleet(folder: Path, *hosts: str, options: tuple[str, ...] = ()) -> AsyncIterator[_Fleet]:
    async with Simulator() as simulator:
        fleet = _Fleet(folder, simulator, options)
        fleet.begin()
        try:
            async with fleet.stack:
                for host in hosts:
                    await fleet.start(host)
                yield fleet
        finally:
            fleet.engine.stop()


def _line(number: int) -> dict[str, Any]:
    body = {
        "model": "gpt-4.1",
        "max_tokens": 20,
        "messages": [{"role": "user", "content": f"secret {number}"}],
    }
    return {"custom_id": f"line {number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def _input(path: Path, lines: int) -> Path:
    path.write_text("".join(json.dumps(_line(number)) + "\n" for number in range(1, lines + 1)))
    return path


def _answers(path: Path) -> Counter[str]:
    return Counter(json.loads(line)["custom_id"] for line in path.read_text().splitlines())


async def test_a_batch_is_submitted_answered_and_fetched(tmp_path: Path) -> None:
    async with _fleet(tmp_path, "h0") as fleet:
        rig = fleet.hosts["h0"]
        source, output = _input(tmp_path / "in.jsonl", 100), tmp_path / "out.jsonl"
        done = await rig.command("batch", "submit", str(source))
        assert (done.code, done.err) == (0, "")
        assert "in: 100 lines submitted" in done.out
        fetched = await rig.command("batch", "fetch", "in", "-o", str(output), "--wait")
        assert (fetched.code, fetched.err) == (0, "")
        assert _answers(output) == {f"line {number}": 1 for number in range(1, 101)}
        again = await rig.command("batch", "fetch", "in", "-o", str(output), "--json")
        assert again.code == 0
        assert again.json()["complete"]
        told = (await rig.command("batch", "status", "--json")).json()["batches"]
        assert [(each["name"], each["stage"], each["lines"]) for each in told] == [("in", "fetched", 100)]
