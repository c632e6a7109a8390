"""A crowd of hostile connections: others are served, what they hold is bounded, and all is given back."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ai_client.testing import Simulator, SimulatorOptions
from tests.client.gateway.hostile_crowd import Crowd
from tests.client.service_rig import TOKEN, Rig, running_service, until

pytestmark = pytest.mark.slow

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
CONNECTIONS = 10_000
# The unit has MemoryMax=1G; a hand-over needs room for a second process.
MOST_BYTES = 512 * 2**20
SOON_S = 90.0
_LIMITED = (
    "import resource, runpy, sys\n"
    "resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)\n"
    "del sys.argv[1]\n"
    "runpy.run_module('ai_client.cli', run_name='__main__', alter_sys=True)\n"
)


def with_descriptors(count: int) -> list[str]:
    """Starts the service with so many."""
    return [sys.executable, "-c", _LIMITED, str(count)]


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """For this process's ends of the connections, and those of the upstream's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def descriptors(rig: Rig) -> int:
    """How many the service has open."""
    return sum(1 for _ in Path(f"/proc/{rig.process.pid}/fd").iterdir())


def resident_bytes(rig: Rig) -> int:
    """The service's memory."""
    [line] = [
        line
        for line in Path(f"/proc/{rig.process.pid}/status").read_text().splitlines()
        if line.startswith("VmRSS:")
    ]
    return int(line.split()[1]) * 1024


def metric(rig: Rig, name: str) -> list[float]:
    """All values of one name, as the service has them."""
    text = httpx.get(f"http://127.0.0.1:{rig.metrics_port}/metrics", timeout=30).text
    return [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)]


async def served(rig: Rig, count: int) -> list[int]:
    """What callers who mean well get, on both sockets, each on a connection of its own."""
    statuses = []
    for number in range(count):
        client = rig.client() if number % 2 else rig.tcp_client()
        async with client:
            answer = await client.post("/v1/chat/completions", json=CHAT | {"seed": number})
            statuses.append(answer.status_code)
    return statuses


@pytest.mark.parametrize(
    ("limit", "count"),
    [
        pytest.param(20_000, CONNECTIONS, id="ten thousand"),
        pytest.param(600, 900, id="more than there are descriptors"),
    ],
)
async def test_others_are_served_beside_a_hostile_crowd_and_nothing_stays(
    tmp_path: Path, many_descriptors: None, limit: int, count: int
) -> None:
    """Whoever is one too many goes, no model is blamed, and memory and descriptors are as before in the end."""
    extra = "rate_limit = 6000000\nmax_concurrent_requests = 200"
    async with (
        Simulator(SimulatorOptions(token_ms=20)) as simulator,
        running_service(tmp_path, simulator, extra=extra, start=with_descriptors(limit)) as rig,
    ):
        assert await served(rig, 4) == [200] * 4
        before, before_bytes = descriptors(rig), resident_bytes(rig)
        crowd = Crowd(port=rig.port, path=rig.socket, token=TOKEN)
        try:
            await asyncio.to_thread(crowd.come, count)
            assert set(await served(rig, 10)) == {200}
            await asyncio.to_thread(crowd.dribble)
            assert set(await served(rig, 10)) == {200}
            assert descriptors(rig) < limit
            assert resident_bytes(rig) < MOST_BYTES
            assert set(metric(rig, "ai_client_breaker_state")) <= {0.0}
        finally:
            await asyncio.to_thread(crowd.leave)
        await until(
            lambda: descriptors(rig) <= before + 8, what="descriptors to be given back", deadline_s=SOON_S
        )
        assert set(await served(rig, 10)) == {200}
        assert resident_bytes(rig) < before_bytes + MOST_BYTES // 4
        assert metric(rig, "ai_client_in_flight") in ([], [0.0])
        assert rig.process.returncode is None
