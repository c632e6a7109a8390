"""`ai-client serve`: puts configuration, key, client, gateway and metrics together, and lives until told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ai_client
from ai_client import health, logs
from ai_client.errors import ConfigurationError
from ai_client.events import EventStream
from ai_client.gateway.app import GatewayApp, Runtime, Users
from ai_client.gateway.assembly import Assembly, assemble, key_provider, state_folder, transport_options
from ai_client.gateway.callers import Doorkeeper, HostCheck
from ai_client.gateway.changes import changes
from ai_client.gateway.gauges import Moment, registry_of
from ai_client.gateway.metrics_listener import MetricsListener
from ai_client.gateway.server import Server
from ai_client.gateway.sockets import Listeners, open_listeners
from ai_client.gateway.window_state import WindowState
from ai_client.health import Check
from ai_client.metrics import Recorder
from ai_client.sdnotify import Notifier
from ai_client.settings import ConfigError, KeyMissingError, KeyPair, Settings, load, read_keys

HEALTH_KEPT_S = 5.0
WINDOW_EVERY_S = 1.0
CERTIFICATE_EVERY_S = 6 * 3600.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the service reads its configuration and key from, at its start and at each reload."""

    config_path: Path
    key_file: Path | None
    environment: Mapping[str, str]

    def read(self) -> tuple[Settings, KeyPair]:
        """Both, or ConfigError or KeyMissingError."""
        settings = load(self.config_path)
        return settings, self.read_keys()

    def read_keys(self) -> KeyPair:
        """The keys, or KeyMissingError."""
        return read_keys(key_file=self.key_file, environment=self.environment)

    def fresh_key(self) -> str | None:
        """The key as it is now, for a client whose key was refused; None where there is none."""
        try:
            return self.read_keys().current.secret
        except KeyMissingError:
            return None


class Service:
    """The running service; `run` returns when it has drained."""

    def __init__(self, sources: Sources, *, operators: frozenset[int]) -> None:
        self._sources = sources
        self._operators = operators
        self._settings, self._keys = sources.read()
        self._events = EventStream()
        self._recorder = self._make_recorder()
        self._events.subscribe(self._recorder)
        self._certificate_expires_at_s: float | None = None
        self._assembly = self._assemble(self._settings, self._keys)
        self._window = WindowState(state_folder(self._settings, sources.environment))
        self._assembly.client.restore(self._window.load())
        self._app = GatewayApp(self._runtime(), control=self)
        self._server = Server(self._app, wall_clock=time.time)
        self._notifier = Notifier(sources.environment)
        self._stop = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._background: set[asyncio.Task[object]] = set()
        self._health: tuple[float, dict[str, Any]] | None = None
        self._last_watchdog_s = 0.0

    def _assemble(self, settings: Settings, keys: KeyPair) -> Assembly:
        provider = key_provider(keys, reload=self._sources.fresh_key)
        state = state_folder(settings, self._sources.environment)
        return assemble(settings, provider, state=state, events=self._events)

    def _runtime(self) -> Runtime:
        return Runtime(
            upstream=self._assembly.client,
            doorkeeper=Doorkeeper(tenants=self._settings.tenants, operators=self._operators),
            host_check=HostCheck(self._settings.gateway),
            default_model=self._settings.models.default,
            max_body_bytes=int(self._settings.gateway.max_body_mb * 1_000_000),
            users=Users(),
        )

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT: the exit code. Raises ListenError."""
        start_logs(self._settings)
        self._handle_signals()
        listeners = open_listeners(self._settings.gateway, self._sources.environment)
        metrics = MetricsListener(self._settings.monitoring, registry_of(self._recorder, self._look))
        self._server.on_tick = self._on_tick
        try:
            await metrics.start()
            for watch in (self._watch_certificate(), self._keep_window()):
                self._in_background(asyncio.create_task(watch))
            await self._server.start(listeners.all())
            self._notifier.ready(f"serving on {listeners.describe()}")
            _log.info("serving", extra=logs.fields({"where": listeners.describe()}))
            await self._stop.wait()
            await self._drain()
        finally:
            for task in self._background:
                task.cancel()
            await metrics.stop()
            self._save_window()
            await self._assembly.aclose()
            _close(listeners)
        _log.info("stopped")
        return 0

    def _make_recorder(self) -> Recorder:
        settings = self._settings
        models = {*settings.model_costs, settings.models.default, *settings.models.fallback_chain}
        tenants = [tenant.name for tenant in settings.tenants]
        provider = urlsplit(settings.api.base_url).hostname or "unknown"
        return Recorder(provider=provider, models=models, tenants=tenants)

    def _look(self) -> Moment:
        now = self._assembly.client.get_stats()
        return Moment(
            connections=self._server.connections,
            requests_in_flight=self._server.requests_in_flight,
            queued=now["queued"],
            pool_in_use=now["pool"]["in_use"],
            pool_size=now["pool"]["size"],
            certificate_expires_at_s=self._certificate_expires_at_s,
        )

    async def _watch_certificate(self) -> None:
        while True:
            check = await health.check_tls(self._settings, transport_options(self._settings))
            self._certificate_expires_at_s = check.expires_at_s or self._certificate_expires_at_s
            await asyncio.sleep(CERTIFICATE_EVERY_S)

    async def _keep_window(self) -> None:
        while True:
            await asyncio.sleep(WINDOW_EVERY_S)
            self._save_window()

    def _save_window(self) -> None:
        try:
            self._window.save(self._assembly.client.snapshot())
        except OSError as exc:
            _log.error("window_not_saved", extra=logs.fields({"reason": exc.strerror}))

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._in_background(loop.create_task(self.reload())))

    def _in_background(self, task: asyncio.Task[Any]) -> None:
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _drain(self) -> None:
        drain_s = self._settings.gateway.drain_s
        self._notifier.stopping(f"draining {self._server.requests_in_flight} requests")
        self._notifier.extend(drain_s + 5)
        self._app.is_draining = True
        _log.info("draining", extra=logs.fields({"requests": self._server.requests_in_flight}))
        cut = await self._server.drain(limit_s=drain_s)
        if cut:
            _log.warning("drain_cut_off", extra=logs.fields({"requests": cut, "drain_seconds": drain_s}))

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
                settings, keys = await asyncio.to_thread(self._sources.read)
                told = self._take(settings, keys)
            except (ConfigError, KeyMissingError, ConfigurationError) as exc:
                self._recorder.reloaded(is_ok=False)
                self._notifier.ready("serving with the old configuration: the new one is wrong")
                _log.error("reload_failed", extra=logs.fields({"reason": str(exc)}))
                return False, {"ok": False, "error": str(exc)}
            self._recorder.reloaded(is_ok=True)
            self._health = None
            self._notifier.ready("serving")
            _log.info("reloaded", extra=logs.fields(told))
            return True, {"ok": True, **told}

    def _take(self, settings: Settings, keys: KeyPair) -> dict[str, Any]:
        """Put both in place, and tell what changed. No connection is dropped, no window is opened."""
        found = changes(self._settings, settings)
        changed = [*found.sections, *(["key"] if keys != self._keys else [])]
        if found.needs_client:
            after = self._assemble(settings, keys)
            after.client.restore(self._assembly.client.snapshot())
            before, users = self._assembly, self._app.runtime.users
            self._assembly = after
            self._in_background(asyncio.get_running_loop().create_task(_retire(before, users)))
        else:
            self._assembly.reconfigure(settings, keys)
        if settings.logging != self._settings.logging:
            start_logs(settings)
        self._settings, self._keys = settings, keys
        self._app.runtime = self._runtime()
        return {
            "changed": changed,
            "restart_needed": found.needs_process,
            "key_fingerprint": keys.current.fingerprint,
        }

    async def health(self) -> dict[str, Any]:
        """All checks; kept for some seconds, so that many askers cost the upstream one request."""
        now_s = time.monotonic()
        if self._health is not None and now_s - self._health[0] < HEALTH_KEPT_S:
            return self._health[1]
        options = transport_options(self._settings)
        report = await health.examine(self._settings, self._keys.current, options=options, probe=self._probe)
        report["service"] = Check(True, f"version {ai_client.__version__}, pid {os.getpid()}")
        answer = health.as_json(report)
        self._health = (time.monotonic(), answer)
        return answer

    async def _probe(self) -> object:
        return await self._assembly.client.models()


def start_logs(settings: Settings) -> None:
    """Log as `[logging]` says."""
    logs.start(
        folder=settings.logging.log_dir,
        level=settings.logging.level,
        retention_days=settings.logging.retention_days,
        wall_clock=time.time,
    )


async def _retire(assembly: Assembly, users: Users) -> None:
    """Close a client when the last request that began with it has ended."""
    await users.gone()
    await assembly.aclose()


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
