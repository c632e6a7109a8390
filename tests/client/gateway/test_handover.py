"""An upgrade: the old process hands over to one of the new release, under load, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from ai_client.testing import Simulator, SimulatorOptions
from ai_client.testing.faults import Fault
from tests.client.coordination.engine import RealEngine, programs
from tests.client.service_rig import DEADLINE_S, Rig, free_port, running_service, until

pytestmark = pytest.mark.slow

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello world"}], "max_tokens": 2}
MAIN = "import sys\nfrom ai_client.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
BROKEN = "raise SystemExit('this release is broken')\n"


@dataclass
class Manager:
    """What systemd would hear."""

    sock: socket.socket
    heard: list[str] = field(default_factory=list)

    def listen(self) -> list[str]:
        """All so far, a line an entry."""
        while True:
            try:
                self.heard += self.sock.recv(65536).decode().splitlines()
            except BlockingIOError:
                return self.heard

    def main_pid(self) -> int | None:
        """The process that was named as the main one, last."""
        pids = [int(line[8:]) for line in self.listen() if line.startswith("MAINPID=")]
        return pids[-1] if pids else None


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """A notification socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify.sock"))
        sock.setblocking(False)
        yield Manager(sock)


def lay_release(folder: Path, name: str, program: str = MAIN) -> None:
    """Put a release in place, as the applier does: beside the others, then the link."""
    release = folder / "releases" / name
    release.mkdir(parents=True)
    (release / "main.py").write_text(program)
    (folder / "next").symlink_to(f"releases/{name}")
    (folder / "next").rename(folder / "current")


@asynccontextmanager
async def managed_service(
    tmp_path: Path,
    simulator: Simulator,
    *,
    extra: str = "rate_limit = 600000",
    drain_s: float = 5,
    watchdog_s: float | None = None,
    program: str = MAIN,
) -> AsyncIterator[Rig]:
    """A service started through the link to its release; whoever serves in the end is stopped."""
    lay_release(tmp_path, "one", program)
    start = [sys.executable, str(tmp_path / "current" / "main.py")]
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify.sock")}
    if watchdog_s is not None:
        environment["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
    async with running_service(
        tmp_path, simulator, extra=extra, start=start, environment=environment, drain_s=drain_s
    ) as rig:
        try:
            yield rig
        finally:
            for pid in serving_pids(rig) - {rig.process.pid}:
                os.kill(pid, signal.SIGTERM)


def serving_pids(rig: Rig) -> set[int]:
    """Processes that run with this rig's configuration file."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(rig.config).encode() in entry.read_bytes().split(b"\0"):
                found.add(int(entry.parent.name))
        except OSError:
            continue
    return found


async def serving_pid(client: httpx.AsyncClient) -> int:
    """Who answers."""
    report = (await client.get("/health")).json()
    return int(report["checks"]["service"]["detail"].rpartition("pid ")[2])


async def hammer(rig: Rig, stop: asyncio.Event, waits_s: list[float], *, keep: bool) -> list[int]:
    """Ask again and again, on one kept connection or on a new one each time: the statuses."""
    statuses = []
    loop = asyncio.get_running_loop()
    async with rig.client() as client:
        while not stop.is_set():
            headers = {} if keep else {"connection": "close"}
            body = CHAT | {"seed": len(statuses), "user": str(id(client))}
            began_s = loop.time()
            statuses.append(
                (await client.post("/v1/chat/completions", json=body, headers=headers)).status_code
            )
            waits_s.append(loop.time() - began_s)
    return statuses


async def test_an_upgrade_under_load_drops_no_request_and_no_stream(tmp_path: Path, manager: Manager) -> None:
    """Three upgrades with callers on kept and new connections, and one stream that runs through all of them."""
    async with (
        Simulator(SimulatorOptions(latency_ms=10, token_ms=60)) as simulator,
        managed_service(tmp_path, simulator) as rig,
        rig.client() as client,
    ):
        body = CHAT | {"stream": True, "max_tokens": 120}
        async with client.stream("POST", "/v1/chat/completions", json=body) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            stop, waits_s = asyncio.Event(), list[float]()
            callers = [asyncio.create_task(hammer(rig, stop, waits_s, keep=n % 2 == 0)) for n in range(6)]
            pids = []
            for name in ("two", "three", "four"):
                count = simulator.counts.answered
                await until(lambda count=count: simulator.counts.answered > count + 30, what="30 answers")
                lay_release(tmp_path, name)
                done = await rig.command("reload", "--json")
                assert done.code == 0, done.err
                assert done.json()["changed"] == ["release"]
                pids.append(done.json()["pid"])
            count = simulator.counts.answered
            await until(lambda: simulator.counts.answered > count + 30, what="30 answers of the last")
            stop.set()
            statuses = [status for caller in callers for status in await caller]
            rest = [line async for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert len(rest) > 120
        assert set(statuses) == {200}
        assert len(statuses) > 100
        assert max(waits_s) < 5
        assert manager.main_pid() == pids[-1]
        async with rig.client() as fresh:
            assert await serving_pid(fresh) == pids[-1]
        await client.aclose()
        async with asyncio.timeout(DEADLINE_S):
            assert await rig.process.wait() == 0


async def test_the_next_process_is_nobodys_child_and_the_main_one_before_it_is_ready(
    tmp_path: Path, manager: Manager
) -> None:
    """systemd learns of the end of its own children alone, and takes notifications of the main process alone."""
    async with Simulator() as simulator, managed_service(tmp_path, simulator) as rig:
        lay_release(tmp_path, "two")
        pid = (await rig.command("reload", "--json")).json()["pid"]
        assert parent_of(pid) != rig.process.pid
        async with asyncio.timeout(DEADLINE_S):
            assert await rig.process.wait() == 0
        heard = manager.listen()
    named = heard.index(f"MAINPID={pid}")
    # The first at its start, the second after it was named; and the end of the first is nobody's concern.
    assert [heard[:named].count("READY=1"), heard[named:].count("READY=1")] == [1, 1]
    assert "STOPPING=1" not in heard


def parent_of(pid: int) -> int:
    """The process that learns of another's end."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_requests_that_wait_go_over_and_the_window_with_them(tmp_path: Path, manager: Manager) -> None:
    """What was sent counts in the new process, and what waits is answered by it."""
    async with (
        Simulator() as simulator,
        managed_service(tmp_path, simulator, extra="rate_limit = 3") as rig,
        rig.client() as client,
    ):
        for number in range(3):
            answer = await client.post("/v1/chat/completions", json=CHAT | {"seed": number})
            assert answer.status_code == 200
        waiting = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT | {"seed": 9}))
        await until(lambda: queued(rig) == 1, what="a request to wait")
        lay_release(tmp_path, "two")
        assert (await rig.command("reload")).code == 0
        async with rig.client() as fresh:
            headers = {"x-ai-deadline": "5"}
            refused = await fresh.post("/v1/chat/completions", json=CHAT | {"seed": 10}, headers=headers)
        assert refused.json()["error"]["code"] == "deadline_exceeded"
        await until(lambda: queued(rig) == 1, what="the request to wait in the new process")
        assert simulator.counts.by_path["/v1/chat/completions"] == 3
        waiting.cancel()
    assert manager.main_pid() is not None


def queued(rig: Rig) -> int:
    """How many wait, as the serving process' metrics say."""
    text = httpx.get(f"http://127.0.0.1:{rig.metrics_port}/metrics", timeout=5).text
    [line] = [line for line in text.splitlines() if line.startswith("ai_client_queue_length ")]
    return int(float(line.split()[1]))


async def test_a_release_that_does_not_start_leaves_the_old_one_serving(
    tmp_path: Path, manager: Manager
) -> None:
    """The reload fails and says so; nobody notices."""
    async with Simulator() as simulator, managed_service(tmp_path, simulator) as rig, rig.client() as client:
        lay_release(tmp_path, "broken", BROKEN)
        done = await rig.command("reload")
        assert done.code == 1
        assert "before it was ready" in done.err
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
        assert await serving_pid(client) == rig.process.pid
    assert manager.main_pid() is None


async def test_a_release_may_come_with_a_configuration_that_the_old_one_cannot_read(
    tmp_path: Path, manager: Manager
) -> None:
    """A reload hands over first: the next process reads the configuration by itself."""
    knows_more = (
        "import pathlib, sys\n"
        "config = pathlib.Path(sys.argv[sys.argv.index('--config') + 1])\n"
        "config.write_text(config.read_text().replace('brought_by_two = 1', ''))\n"
    )
    async with Simulator() as simulator, managed_service(tmp_path, simulator) as rig, rig.client() as client:
        rig.config.write_text(rig.config.read_text().replace("[api]", "[api]\nbrought_by_two = 1"))
        assert (await client.post("/control/reload")).status_code != 200
        lay_release(tmp_path, "two", knows_more + MAIN)
        assert (await client.post("/control/reload")).status_code == 200
        await until(lambda: manager.main_pid() is not None, what="the next process is the main one")
        assert await serving_pid(client) != rig.process.pid


async def test_without_a_manager_an_upgrade_wants_a_restart(tmp_path: Path) -> None:
    """Who waits for this process would think the service gone."""
    lay_release(tmp_path, "one")
    start = [sys.executable, str(tmp_path / "current" / "main.py")]
    async with Simulator() as simulator, running_service(tmp_path, simulator, start=start) as rig:
        lay_release(tmp_path, "two")
        done = await rig.command("reload", "--json")
        assert (done.code, done.json()["restart_needed"]) == (3, True)


async def test_a_tenant_gains_no_right_through_a_process_that_hands_over(
    tmp_path: Path, manager: Manager
) -> None:
    """The old process passes requests on as an operator; control routes it does not pass on."""
    async with (
        Simulator() as simulator,
        managed_service(tmp_path, simulator) as rig,
        rig.tcp_client() as client,
    ):
        assert (await client.get("/v1/models")).status_code == 200
        lay_release(tmp_path, "two")
        assert (await rig.command("reload")).code == 0
        answer = await client.post("/control/reload")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
        assert answer.headers["connection"] == "close"
        assert (await client.post("/control/reload")).status_code == 403
    assert manager.main_pid() is not None


async def test_a_lease_of_a_shared_quota_goes_over_with_the_window(tmp_path: Path, manager: Manager) -> None:
    """The new process sends under it at once, though the engine is gone; the one before it sends nothing more.

    A request that the one before had to send again is sent by the new one.
    """
    port = free_port()
    engine = RealEngine(programs()[0], tmp_path, "--port", str(port), "--bind", "127.0.0.1").start()
    extra = f"rate_limit = 100\n[coordination]\nendpoint = redis://127.0.0.1:{port}\nhost = h\n"
    try:
        async with (
            Simulator() as simulator,
            managed_service(tmp_path, simulator, extra=extra) as rig,
            rig.client() as client,
        ):
            await until(lambda: leased(rig), what="a lease")
            simulator.faults.add(Fault("status", 503, retry_after="3"))
            again = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT | {"seed": 1}))
            await until(lambda: simulator.counts.by_path["/v1/chat/completions"] == 1, what="the first try")
            engine.stop()
            lay_release(tmp_path, "two")
            assert (await rig.command("reload")).code == 0
            async with rig.client() as fresh:
                answer = await fresh.post("/v1/chat/completions", json=CHAT | {"seed": 2}, timeout=3)
            assert answer.status_code == 200
            assert (await again).status_code == 200
            assert await serving_pid(client) != rig.process.pid
    finally:
        engine.stop()
    assert manager.main_pid() is not None


def leased(rig: Rig) -> bool:
    """Whether the serving process sends under a lease."""
    text = httpx.get(f"http://127.0.0.1:{rig.metrics_port}/metrics", timeout=5).text
    return "ai_client_quota_leased 1.0" in text.splitlines()
