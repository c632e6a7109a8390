"""`ai-client serve`: puts configuration, key, client, gateway and metrics together, and lives until told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_client import logs
from ai_client.audit import AuditTrail
from ai_client.errors import ConfigurationError
from ai_client.events import Admitted, EventStream, Failed, Settled
from ai_client.gateway.app import GatewayApp, Runtime, Users
from ai_client.gateway.assembly import LEDGER_NAME, Assembly, assemble, key_provider, limits, state_folder
from ai_client.gateway.call import note_admission
from ai_client.gateway.callers import Doorkeeper, HostCheck
from ai_client.gateway.changes import changes
from ai_client.gateway.checkup import Checkup
from ai_client.gateway.event_log import KINDS as LOGGED_KINDS
from ai_client.gateway.event_log import EventLog
from ai_client.gateway.evidence import KINDS as EVIDENCE_KINDS
from ai_client.gateway.evidence import Evidence
from ai_client.gateway.gauges import Moment
from ai_client.gateway.handover import Estate, HandoverError, Inheritance, Successor
from ai_client.gateway.metrics_listener import MetricsListener
from ai_client.gateway.observer import Observer
from ai_client.gateway.own_limits import OwnLimits
from ai_client.gateway.pacing import Pacer
from ai_client.gateway.server import Server
from ai_client.gateway.sockets import Listeners, open_listeners
from ai_client.gateway.sources import Sources
from ai_client.gateway.spool_child import SpoolChild
from ai_client.gateway.window_memory import WindowMemory
from ai_client.sdnotify import Notifier
from ai_client.settings import ConfigError, KeyMissingError, KeyPair, Settings

if TYPE_CHECKING:
    from ai_client.gateway.forwarder import Forwarder

# An old process ends with its last stream; its connections otherwise end by keep-alive.
HANDOVER_DRAIN_S = 3600.0
CERTIFICATE_EVERY_S = 6 * 3600.0

_log = logging.getLogger(__name__)


class Service:
    """The running service; `run` returns when it has drained."""

    def __init__(self, sources: Sources, *, operators: frozenset[int]) -> None:
        self._sources = sources
        self._operators = operators
        self._settings, self._keys = sources.read()
        self._state = state_folder(self._settings, sources.environment)
        self._events = EventStream()
        evidence = Evidence(clock=time.monotonic)
        self._checkup = Checkup(evidence)
        self._assembly = self._assemble(self._settings, self._keys)
        self._window = WindowMemory(
            self._state,
            limit_rpm=self._settings.performance.rate_limit_rpm,
            counts_tokens=self._settings.performance.token_limit_tpm is not None,
        )
        self._pacer = Pacer(limits(self._settings), clock=time.monotonic)
        self._subscribe(evidence)
        self._audit = self._make_audit()
        self._app = GatewayApp(self._runtime(), control=self, pacer=self._pacer)
        self._server = Server(self._app, wall_clock=time.time)
        self._notifier = Notifier(sources.environment)
        ledger = self._state / LEDGER_NAME
        self._observer = Observer(self._settings, events=self._events, ledger=ledger, look=self._look)
        self._metrics = MetricsListener(self._settings.monitoring, self._observer)
        self._listeners: Listeners
        self._forwarder: Forwarder | None = None
        self._spool: SpoolChild | None = None
        self._has_handed_over = False
        self._stop = asyncio.Event()
        self._turn = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._background: set[asyncio.Task[object]] = set()
        self._last_watchdog_s = 0.0

    def _assemble(self, settings: Settings, keys: KeyPair, *, before: Assembly | None = None) -> Assembly:
        provider = key_provider(keys, reload=self._sources.fresh_key)
        predecessor = None if before is None else before.client
        return assemble(settings, provider, state=self._state, events=self._events, predecessor=predecessor)

    def _runtime(self) -> Runtime:
        return Runtime(
            upstream=self._assembly.client,
            doorkeeper=Doorkeeper(tenants=self._settings.tenants, operators=self._operators),
            host_check=HostCheck(self._settings.gateway),
            default_model=self._settings.models.default,
            max_body_bytes=int(self._settings.gateway.max_body_mb * 1_000_000),
            users=Users(),
            own_limits=OwnLimits(
                limits(self._settings), look=self._assembly.client.get_stats, clock=time.monotonic
            ),
        )

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT, or until another process has taken over: the exit code.

        Raises ListenError, and EOFError where the process before this one is gone before it handed over.
        """
        start_logs(self._settings)
        self._handle_signals()
        heir = Inheritance.take(self._sources.environment)
        environment = self._sources.environment
        self._listeners = heir.listeners() if heir else open_listeners(self._settings.gateway, environment)
        try:
            await self._begin(heir)
            await self._turn.wait()
            if self._spool is not None:
                await self._spool.stop()
            if self._has_handed_over:
                await self._server.run_out(limit_s=HANDOVER_DRAIN_S, until=self._stop)
            await self._drain()
        finally:
            await self._end()
        _log.info("stopped")
        return 0

    async def _begin(self, heir: Inheritance | None) -> None:
        window = await heir.wait_to_go() if heir else self._window.load(now_s=time.time())
        self._assembly.client.restore(window)
        self._server.on_tick = self._on_tick
        await self._metrics.start(heir.metrics() if heir else None)
        await self._server.start(self._listeners.all())
        if heir:
            await heir.say_serving()
        where = self._listeners.describe()
        self._notifier.ready(f"serving on {where}")
        _log.info("serving", extra=logs.fields({"where": where, "took_over": heir is not None}))
        self._in_background(asyncio.create_task(self._watch_certificate()))
        if self._settings.batch.mode:
            self._spool = SpoolChild(self._sources.config_path)
            self._spool.start()

    async def _end(self) -> None:
        for task in self._background:
            task.cancel()
        await self._metrics.stop()
        await self._assembly.aclose()
        self._window.close()
        if self._audit is not None:
            self._audit.close()
        if self._forwarder is not None:
            await self._forwarder.aclose()
        self._close_listeners()

    def _close_listeners(self) -> None:
        """A socket that nobody accepts on any more must not take connections. Calling it twice is fine."""
        for sock in self._listeners.all():
            sock.close()
        if self._listeners.bound_path is not None and not self._has_handed_over:
            self._listeners.bound_path.unlink(missing_ok=True)

    async def hand_over(self) -> int:
        """Let a new process serve, of the release that is in place now: its pid. Raises HandoverError."""
        estate = Estate.of(self._listeners, self._metrics.listening)
        make_forwarder, successor = await asyncio.gather(
            asyncio.to_thread(_load_forwarder),
            Successor.start(self._sources.launch, environment=self._sources.environment, estate=estate),
        )
        self._server.stop_accepting()
        self._metrics.stop_accepting()
        self._forwarder = make_forwarder(Path(self._listeners.unix.getsockname()))
        self._app.hand_over(self._forwarder)
        try:
            await successor.go(self._assembly.client.snapshot())
        except HandoverError:
            self._app.take_over_again()
            await self._metrics.resume()
            await self._server.start(self._listeners.all())
            raise
        self._notifier.main_process(successor.pid)
        # Of another process than the main one systemd takes nothing, and writes a warning for each.
        self._notifier = Notifier({})
        successor.part()
        self._has_handed_over = True
        self._turn.set()
        _log.info("handed_over", extra=logs.fields({"to": successor.pid}))
        return successor.pid

    def _subscribe(self, evidence: Evidence) -> None:
        """Those who want the client's events, but for the audit trail and the observer, which come later."""
        self._events.subscribe(note_admission, Admitted)
        self._events.subscribe(EventLog(clock=time.monotonic), *LOGGED_KINDS)
        if self._window.kinds:
            self._events.subscribe(self._window, *self._window.kinds)
        self._events.subscribe(self._pacer, Admitted)
        self._events.subscribe(evidence, *EVIDENCE_KINDS)

    def _make_audit(self) -> AuditTrail | None:
        settings = self._settings
        if not settings.audit.enabled:
            return None
        trail = AuditTrail(
            settings.logging.log_dir, retention_days=settings.audit.retention_days, events=self._events
        )
        self._events.subscribe(trail, Settled, Failed)
        return trail

    def _look(self) -> Moment:
        return Moment(
            connections=self._server.connections,
            requests_in_flight=self._server.requests_in_flight,
            faults=self._server.faults,
            client=self._assembly.client.get_stats(),
            certificate_expires_at_s=self._checkup.certificate_expires_at_s,
        )

    async def _watch_certificate(self) -> None:
        while True:
            await self._checkup.look_at_certificate(self._settings)
            await asyncio.sleep(CERTIFICATE_EVERY_S)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_soon)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._in_background(loop.create_task(self.reload())))

    def _stop_soon(self) -> None:
        self._stop.set()
        self._turn.set()

    def _in_background(self, task: asyncio.Task[Any]) -> None:
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _drain(self) -> None:
        drain_s = self._settings.gateway.drain_s
        self._notifier.stopping(f"draining {self._server.requests_in_flight} requests")
        self._notifier.extend(drain_s + 5)
        self._app.is_draining = True
        self._close_listeners()
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
                told = await self._replace_by_release() or self._take(settings, keys)
            except (ConfigError, KeyMissingError, ConfigurationError) as exc:
                self._observer.recorder.reloaded(is_ok=False)
                self._notifier.ready("serving with the old configuration: the new one is wrong")
                _log.error("reload_failed", extra=logs.fields({"reason": str(exc)}))
                return False, {"ok": False, "error": str(exc)}
            except HandoverError as exc:
                self._observer.recorder.reloaded(is_ok=False)
                self._notifier.ready("serving with the old release: the new one does not start")
                _log.error("handover_failed", extra=logs.fields({"reason": str(exc)}))
                return False, {"ok": False, "error": str(exc)}
            self._observer.recorder.reloaded(is_ok=True)
            self._checkup.forget()
            if not self._has_handed_over:
                self._notifier.ready("serving")
            _log.info("reloaded", extra=logs.fields(told))
            return True, {"ok": True, **told}

    async def _replace_by_release(self) -> dict[str, Any] | None:
        """Where another release was put in place: hand over to it, or say that it takes a restart."""
        if not self._sources.launch.is_replaced() or self._has_handed_over:
            return None
        if not self._notifier.is_active:
            # Without a manager that can be told, whoever waits for this process would think the service gone.
            return {"changed": ["release"], "restart_needed": True}
        return {"changed": ["release"], "restart_needed": False, "pid": await self.hand_over()}

    def _take(self, settings: Settings, keys: KeyPair) -> dict[str, Any]:
        """Put both in place, and tell what changed. No connection is dropped, no window is opened."""
        found = changes(self._settings, settings)
        changed = [*found.sections, *(["key"] if keys != self._keys else [])]
        if found.needs_client:
            # Those who wait in the old client and those who come to the new one stand in one queue.
            after = self._assemble(settings, keys, before=self._assembly)
            before, users = self._assembly, self._app.runtime.users
            self._assembly = after
            self._in_background(asyncio.get_running_loop().create_task(_retire(before, users)))
        else:
            self._assembly.reconfigure(settings, keys)
        if settings.logging != self._settings.logging:
            start_logs(settings)
        self._settings, self._keys = settings, keys
        self._observer.settings = settings
        self._pacer.pace.limits = limits(settings)
        self._app.runtime = self._runtime()
        return {
            "changed": changed,
            "restart_needed": found.needs_process,
            "key_fingerprint": keys.current.fingerprint,
        }

    async def health(self) -> dict[str, Any]:
        """All checks, as the checkup has them."""
        return await self._checkup.report(self._settings, self._keys.current, self._assembly.client.send)

    async def status(self) -> dict[str, Any]:
        """For the status page."""
        return await self._observer.status()


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


def _load_forwarder() -> type[Forwarder]:
    """Run in a thread when it is needed: aiohttp takes 12 MB, and the loop must not wait for it."""
    from ai_client.gateway.forwarder import Forwarder  # noqa: PLC0415 - see above

    return Forwarder


def spare_the_collector() -> None:
    """What is there from the start stays, and what requests leave is freed by its count: looking for cycles at every
    700th object took a tenth of the processor's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def serve(sources: Sources) -> int:
    """Run the service on uvloop; the exit code. Raises ConfigError, KeyMissingError or ListenError."""
    import uvloop  # noqa: PLC0415  only `serve` needs it, and it costs start-up time

    async def main() -> int:
        spare_the_collector()
        return await Service(sources, operators=frozenset({0, os.geteuid()})).run()

    return uvloop.run(main())
