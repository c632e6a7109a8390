"""A real `ai-client serve` process against a simulator of this process, on sockets in a temporary folder."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ai_client.testing import Simulator

TEST_KEY = "hs_test_0123456789abcdef"
TOKEN = "a-token-for-tests"
TOKEN_SHA256 = hashlib.sha256(TOKEN.encode()).hexdigest()
DEADLINE_S = 15.0


async def until(condition: Callable[[], bool], *, what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait for a condition to hold; fail naming it."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + deadline_s
    while not condition():
        assert loop.time() < end_s, f"waited {deadline_s} s for {what}"
        await asyncio.sleep(0.01)


def free_port() -> int:
    """A port that is free now, and that the kernel gives to nobody meanwhile: it lies below its range."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) != 0:
                return port


def program(*names: str, package: str) -> str:
    """The path of a program that a test needs, by the first of its names that is there."""
    found = next(filter(None, map(shutil.which, names)), None)
    assert found is not None, f"{names[0]} is missing; install it (Debian: apt-get install {package})"
    return found


@dataclass
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Its output, parsed."""
        return json.loads(self.out)


async def ai_client(*arguments: str, environment: dict[str, str] | None = None) -> Finished:
    """Run the command to its end, without the caller's key variables."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ai_client.cli",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(environment or {}),
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("HOLYSHEEP_API_KEY",)}
    return kept | dict(extra)


@dataclass
class Rig:
    """A running service, and where its things are."""

    folder: Path
    config: Path
    key_file: Path
    socket: Path
    port: int
    metrics_port: int
    process: asyncio.subprocess.Process
    drain_s: float = 5

    def accepts(self) -> bool:
        """Whether the port for Prometheus takes connections: it does in every run, before callers are accepted."""
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.metrics_port)) == 0

    def client(self) -> httpx.AsyncClient:
        """Over the Unix socket."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.socket))
        return httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=20)

    def tcp_client(self, token: str | None = TOKEN) -> httpx.AsyncClient:
        """Over TCP."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=20)

    def set_config(self, base_url: str, extra: str = "") -> None:
        """Write the configuration anew."""
        self.config.write_text(config_text(self, base_url=base_url, extra=extra))

    async def command(self, *arguments: str) -> Finished:
        """Run `ai-client` with this service's configuration."""
        return await ai_client(*arguments, "--config", str(self.config), "--key-file", str(self.key_file))

    async def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()


def config_text(rig: Rig, *, base_url: str, extra: str) -> str:
    """A configuration for a rig; `extra` may begin with keys of [performance]."""
    return f"""\
[api]
base_url = {base_url}
[caching]
cache_dir = {rig.folder}/cache
[logging]
log_dir = {rig.folder}/log
[gateway]
socket = {rig.socket}
port = {rig.port}
drain_seconds = {rig.drain_s:g}
[monitoring]
metrics_port = {rig.metrics_port}
[tenant web]
token_sha256 = {TOKEN_SHA256}
[performance]
{extra}
"""


@asynccontextmanager
async def running_service(
    folder: Path,
    simulator: Simulator,
    *,
    extra: str = "rate_limit = 60000",
    api: str = "",
    start: Sequence[str] = (sys.executable, "-m", "ai_client.cli"),
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    starts_within_s: float = DEADLINE_S,
    drain_s: float = 5,
) -> AsyncIterator[Rig]:
    """Start the service by `start`, wait until it answers, and stop it in the end. `api` has lines of [api]."""
    for name in ("cache", "log"):
        (folder / name).mkdir(exist_ok=True)
    process = await _start(
        folder,
        f"{simulator.base_url}\n{api}",
        extra,
        start=start,
        environment=environment or {},
        pass_fds=pass_fds,
        drain_s=drain_s,
    )
    rig = _rig(folder, process, drain_s=drain_s)
    try:
        await until(
            lambda: rig.accepts() or process.returncode is not None,
            what="the service to accept",
            deadline_s=starts_within_s,
        )
        assert process.returncode is None, "the service ended at its start"
        yield rig
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


def _rig(folder: Path, process: asyncio.subprocess.Process, *, drain_s: float) -> Rig:
    ports = json.loads((folder / "ports.json").read_text())
    return Rig(
        folder=folder,
        config=folder / "ai-client.conf",
        key_file=folder / "key",
        socket=folder / "gateway.sock",
        port=ports[0],
        metrics_port=ports[1],
        process=process,
        drain_s=drain_s,
    )


async def _start(
    folder: Path,
    base_url: str,
    extra: str,
    *,
    start: Sequence[str],
    environment: Mapping[str, str],
    pass_fds: Sequence[int],
    drain_s: float,
) -> asyncio.subprocess.Process:
    (folder / "ports.json").write_text(json.dumps([free_port(), free_port()]))
    (folder / "key").write_text(TEST_KEY + "\n")
    rig = _rig(folder, process=None, drain_s=drain_s)  # type: ignore[arg-type]  # only the paths are needed here
    rig.set_config(base_url, extra)
    options = ("serve", "--config", str(rig.config), "--key-file", str(rig.key_file))
    return await asyncio.create_subprocess_exec(
        *start, *options, env=_environment(environment), pass_fds=pass_fds
    )
