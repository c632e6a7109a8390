"""What systemd sees: sockets that it hands over, notifications, the watchdog; and what the log says."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from ai_client.contract.events import KeyRotated, StoreDegraded
from ai_client.gateway.watch.event_log import MOST_LINES, EventLog
from ai_client.platform.systemd import Notifier
from ai_client.testing import Simulator, SimulatorOptions
from tests.client.gateway.test_status_page import settled
from tests.client.service_rig import Rig, running_service, until

pytestmark = pytest.mark.slow

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}


@pytest.fixture
def notifications(tmp_path: Path) -> Iterator[socket.socket]:
    """systemd's end of the notification socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify.sock"))
        sock.setblocking(False)
        yield sock


def heard(sock: socket.socket, so_far: list[str]) -> list[str]:
    """All lines until now."""
    while True:
        try:
            so_far += sock.recv(65536).decode().splitlines()
        except BlockingIOError:
            return so_far


async def test_a_service_tells_its_life_to_systemd(tmp_path: Path, notifications: socket.socket) -> None:
    """READY, WATCHDOG, RELOADING with a time and READY again, STOPPING."""
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify.sock"), "WATCHDOG_USEC": "2000000"}
    lines: list[str] = []
    async with Simulator() as simulator, running_service(tmp_path, simulator, environment=environment) as rig:
        await until(lambda: "READY=1" in heard(notifications, lines), what="READY")
        await until(lambda: "WATCHDOG=1" in heard(notifications, lines), what="WATCHDOG")
        lines.clear()
        assert (await rig.command("reload")).code == 0
        heard(notifications, lines)
        assert lines.index("RELOADING=1") < lines.index("READY=1")
        assert any(line.startswith("MONOTONIC_USEC=") for line in lines)
        await rig.stop()
        assert "STOPPING=1" in heard(notifications, lines)


async def test_a_failed_reload_is_ready_again_with_the_reason(
    tmp_path: Path, notifications: socket.socket
) -> None:
    """The service goes on, and `systemctl status` says why."""
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify.sock")}
    lines: list[str] = []
    async with Simulator() as simulator, running_service(tmp_path, simulator, environment=environment) as rig:
        rig.key_file.write_text("no key")
        assert (await rig.command("reload")).code == 1
        heard(notifications, lines)
        assert lines[-2:] == ["READY=1", "STATUS=serving with the old configuration: the new one is wrong"]


def test_without_systemd_nothing_is_sent_and_no_watchdog_is_due() -> None:
    """A foreground run."""
    notifier = Notifier({})
    notifier.ready("serving")
    assert (notifier.is_active, notifier.watchdog_s) == (False, None)
    assert Notifier({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}).watchdog_s is None
    assert Notifier({"WATCHDOG_USEC": "30000000"}).watchdog_s == 15


@asynccontextmanager
async def activated(tmp_path: Path, simulator: Simulator) -> AsyncIterator[tuple[Rig, int, socket.socket]]:
    """A service that finds its sockets at descriptor 3 and 4, as systemd passes them."""
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unix.bind(str(tmp_path / "activated.sock"))
    unix.listen(64)
    tcp = socket.create_server(("127.0.0.1", 0))
    numbers = (unix.fileno(), tcp.fileno())
    # A shell moves them into place, and knows its own process id, which becomes the service's.
    place = f"exec 3<&{numbers[0]} 4<&{numbers[1]}; export LISTEN_PID=$$; exec "
    command = f"{sys.executable} -m ai_client.cli"
    environment = {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "gateway:gateway-tcp"}
    start = ["bash", "-c", f'{place} {command} "$@"', "serve"]
    async with running_service(
        tmp_path, simulator, start=start, environment=environment, pass_fds=numbers
    ) as rig:
        yield rig, tcp.getsockname()[1], unix
    tcp.close()
    unix.close()


async def test_sockets_of_systemd_are_used_and_outlive_the_service(tmp_path: Path) -> None:
    """By their names, whatever the configuration says; a stop leaves the socket's file to systemd."""
    async with Simulator() as simulator, activated(tmp_path, simulator) as (rig, port, _):
        transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "activated.sock"))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/v1/models")).status_code == 401
        assert not rig.socket.exists()
        assert await rig.stop() == 0
        assert (tmp_path / "activated.sock").exists()


async def test_a_caller_that_comes_while_the_service_restarts_is_answered_by_the_next(tmp_path: Path) -> None:
    """Its connection waits in systemd's socket."""
    async with Simulator() as simulator, activated(tmp_path, simulator) as (rig, _, unix):
        await rig.stop()
        transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "activated.sock"))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=20) as client:
            waiting = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT))
            await until(lambda: not waiting.done(), what="the request to wait")
            place = f"exec 3<&{unix.fileno()}; export LISTEN_PID=$$; exec {sys.executable} -m ai_client.cli"
            process = await asyncio.create_subprocess_exec(
                *("bash", "-c", f'{place} "$@"', "serve", "serve"),
                *("--config", str(rig.config), "--key-file", str(rig.key_file)),
                env={**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "gateway"},
                pass_fds=(unix.fileno(),),
            )
            assert (await waiting).status_code == 200
            process.terminate()
            assert await process.wait() == 0


async def test_curl_works_as_it_is(tmp_path: Path) -> None:
    """A line that anybody can type."""
    async with Simulator() as simulator, running_service(tmp_path, simulator) as rig:
        process = await asyncio.create_subprocess_exec(
            *("curl", "-sS", "--unix-socket", str(rig.socket), "http://localhost/v1/chat/completions"),
            *("-d", json.dumps(CHAT)),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
    assert json.loads(out)["choices"][0]["message"]["content"] == "hello"


async def test_answers_tell_this_hosts_own_limits(tmp_path: Path) -> None:
    """Its share of the account, not the account's."""
    async with (
        Simulator(SimulatorOptions(limit_rpm=5000)) as simulator,
        running_service(tmp_path, simulator, extra="rate_limit = 50") as rig,
        rig.client() as client,
    ):
        answer = await client.post("/v1/chat/completions", json=CHAT)
    assert answer.headers["x-ratelimit-limit-requests"] == "50"
    assert int(answer.headers["x-ratelimit-remaining-requests"]) in (49, 50)


def test_a_request_that_we_made_slow_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """Over 100 ms of our own; a slow upstream is not our fault."""
    with caplog.at_level(logging.INFO):
        event_log = EventLog(clock=lambda: 0.0)
        event_log(settled(0.0, 0.05))
        event_log(settled(0.0, 0.25))
    [record] = caplog.records
    assert (record.levelname, record.message) == ("WARNING", "slow_request")
    assert record.fields["overhead_ms"] == 250


def test_what_an_operator_looks_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """By the event's facts."""
    with caplog.at_level(logging.INFO):
        event_log = EventLog(clock=lambda: 0.0)
        event_log(KeyRotated(at=0.0, before_fingerprint="a", after_fingerprint="b"))
        event_log(StoreDegraded(at=0.0, store="ledger", reason="disk full"))
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "key_rotated"),
        ("ERROR", "store_degraded"),
    ]
    assert caplog.records[1].fields == {"store": "ledger", "reason": "disk full"}


def test_a_flood_of_events_is_no_flood_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Writing about an overload must not add to it; what was left out is counted."""
    now_s = 0.0
    event_log = EventLog(clock=lambda: now_s)
    with caplog.at_level(logging.INFO):
        for _ in range(1000):
            event_log(settled(0.0, 0.25))
        now_s = 11.0
        event_log(settled(0.0, 0.25))
    assert len(caplog.records) == MOST_LINES + 1
    assert caplog.records[-1].fields["left_out"] == 1000 - MOST_LINES
