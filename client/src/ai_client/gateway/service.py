"""`ai-client serve`: puts configuration, key, client, gateway and metrics together, and lives until told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ai_client
from ai_client import health
from ai_client.gateway.app import GatewayApp, Runtime
from ai_client.gateway.callers import Doorkeeper, HostCheck
from ai_client.gateway.metrics_listener import MetricsListener
from ai_client.gateway.passthrough import Passthrough
from ai_client.gateway.server import Server
from ai_client.gateway.sockets import Listeners, open_listeners
from ai_client.health import Check
from ai_client.request import Request
from ai_client.sdnotify import Notifier
from ai_client.settings import ApiKey, ConfigError, KeyMissingError, Settings, load, read_key

HEALTH_KEPT_S = 2.0


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the service reads its configuration and key from, at its start and at each reload."""

    config_path: Path
    key_file: Path | None
    environment: Mapping[str, str]

    def read(self) -> tuple[Settings, ApiKey]:
        """Both, or ConfigError or KeyMissingError."""
        settings = load(self.config_path)
        return settings, read_key(key_file=self.key_file, environment=self.environment)


class Service:
    """The running service; `run` returns when it has drained."""

    def __init__(self, sources: Sources, *, operators: frozenset[int]) -> None:
        self._sources = sources
        self._operators = operators
        self._settings, self._key = sources.read()
        self._upstream = Passthrough(self._settings, self._key)
        self._app = GatewayApp(self._runtime(), control=self)
        self._server = Server(self._app, wall_clock=time.time)
        self._notifier = Notifier(sources.environment)
        self._stop = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._health: tuple[float, dict[str, Any]] | None = None
        self._last_watchdog_s = 0.0

    def _runtime(self) -> Runtime:
        return Runtime(
            upstream=self._upstream,
            doorkeeper=Doorkeeper(tenants=self._settings.tenants, operators=self._operators),
            host_check=HostCheck(self._settings.gateway),
            default_model=self._settings.models.default,
            max_body_bytes=int(self._settings.gateway.max_body_mb * 1_000_000),
        )

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT: the exit code. Raises ListenError."""
        loop = asyncio.get_running_loop()
        listeners = open_listeners(self._settings.gateway, self._sources.environment)
        metrics = MetricsListener(self._settings.monitoring)
        self._server.on_tick = self._on_tick
        reloads: set[asyncio.Task[object]] = set()

        def reload_soon() -> None:
            task: asyncio.Task[object] = loop.create_task(self.reload())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, reload_soon)
        try:
            await metrics.start()
            await self._server.start(listeners.all())
            self._notifier.ready(f"serving on {listeners.describe()}")
            await self._stop.wait()
            await self._drain()
        finally:
            await metrics.stop()
            await self._upstream.aclose()
            _close(listeners)
        return 0

    async def _drain(self) -> None:
        drain_s = self._settings.gateway.drain_s
        self._notifier.stopping(f"draining {self._server.requests_in_flight} requests")
        self._notifier.extend(drain_s + 5)
        self._app.is_draining = True
        await self._server.drain(limit_s=drain_s)

    def _on_tick(self) -> None:
        every_s = self._notifier.watchdog_s
        now_s = time.monotonic()
        if every_s is not None and now_s - self._last_watchdog_s >= every_s / 2:
            self._last_watchdog_s = now_s
            self._notifier.watchdog()

    async def reload(self) -> tuple[bool, dict[str, Any]]:
        """Read configuration and key anew and put them in place together; where either is wrong, change nothing."""
        async with self._reloading:
            self._notifier.reloading()
            try:
                settings, key = await asyncio.to_thread(self._sources.read)
            except (ConfigError, KeyMissingError) as exc:
                self._notifier.ready("serving with the old configuration: the new one is wrong")
                return False, {"ok": False, "error": str(exc)}
            before, self._settings, self._key = self._upstream, settings, key
            self._upstream = Passthrough(settings, key)
            self._app.runtime = self._runtime()
            self._health = None
            self._notifier.ready("serving")
            await before.aclose()
            return True, {"ok": True, "key_fingerprint": key.fingerprint}

    async def health(self) -> dict[str, Any]:
        """All checks; kept for two seconds, so that many askers cost the upstream one request."""
        now_s = time.monotonic()
        if self._health is not None and now_s - self._health[0] < HEALTH_KEPT_S:
            return self._health[1]
        report = await health.examine(self._settings, self._key, probe=self._probe)
        report["service"] = Check(True, f"version {ai_client.__version__}, pid {os.getpid()}")
        answer = health.as_json(report)
        self._health = (time.monotonic(), answer)
        return answer

    async def _probe(self) -> int:
        return (await self._upstream.send(Request(endpoint="models", body={}))).status


def _close(listeners: Listeners) -> None:
    for sock in listeners.all():
        sock.close()
    if listeners.bound_path is not None:
        listeners.bound_path.unlink(missing_ok=True)


def serve(sources: Sources) -> int:
    """Run the service on uvloop; the exit code. Raises ConfigError, KeyMissingError or ListenError."""
    import uvloop  # noqa: PLC0415  only `serve` needs it, and it costs start-up time

    async def main() -> int:
        return await Service(sources, operators=frozenset({0, os.geteuid()})).run()

    return uvloop.run(main())
