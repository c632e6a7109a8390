"""`ai-client serve`: puts configuration, key, client, gateway and metrics together, and lives until told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from ai_client.configure.assembly import Assembly, assemble, key_provider, limits, state_folder
from ai_client.configure.changes import changes
from ai_client.configure.config_file import ConfigFile
from ai_client.configure.health import with_check
from ai_client.configure.sources import Sources
from ai_client.configure.upstreams import other_upstreams
from ai_client.contract.events import Admitted, EventStream, Throttled
from ai_client.gateway.app.app import GatewayApp, Runtime, Users
from ai_client.gateway.app.pacing import Pacer
from ai_client.gateway.http.server import Server
from ai_client.gateway.http.sockets import Listeners, Places, open_listeners
from ai_client.gateway.process.clock_steps import ClockSteps
from ai_client.gateway.process.collector import spare_the_collector
from ai_client.gateway.process.descriptors import bounds_for
from ai_client.gateway.process.failed_reload import FAILURES, failed_reload
from ai_client.gateway.process.handover import Inheritance
from ai_client.gateway.process.lifecycle import Lifecycle
from ai_client.gateway.process.limit_memory import LimitMemory
from ai_client.gateway.process.logs import start_logs
from ai_client.gateway.process.monitoring import Monitoring
from ai_client.gateway.process.quota import Quota
from ai_client.gateway.process.renewal import keep_fresh
from ai_client.gateway.process.runtime import retire, runtime_of
from ai_client.gateway.process.self_report import SelfReport
from ai_client.gateway.process.spool_child import SpoolChild
from ai_client.gateway.process.succession import Parts, Succession
from ai_client.gateway.process.window_memory import WindowMemory
from ai_client.gateway.watch.gauges import ServiceState
from ai_client.gateway.watch.spending import Spent
from ai_client.platform import json_log
from ai_client.platform.clock import Clock, SystemClock
from ai_client.settings import KeyPair, Settings

# An old process ends with its last stream; its connections otherwise end by keep-alive.
HANDOVER_DRAIN_S = 3600.0
UNREAD_S = 60.0
UNREAD_BUSY_S = 5.0

_log = logging.getLogger(__name__)


class Service:
    """The running service; `run` returns when it has drained."""

    def __init__(
        self,
        sources: Sources,
        *,
        operators: frozenset[int],
        announce: Callable[[Places], None],
        clock: Clock | None = None,
        random_source: random.Random | None = None,
    ) -> None:
        self._clock, self._random, self._sources = clock or SystemClock(), random_source, sources
        self._announce, self._operators = announce, operators
        self._heir: Inheritance | None = None
        self._config = ConfigFile(sources.config_path, clock=self._clock)
        self._settings, self._keys = sources.read(self._config.in_use)
        self._state = state_folder(self._settings, sources.environment)
        self._events = EventStream()
        self._report = SelfReport(
            sources.launch, sources.config_path, health=self.health, stats=self._stats, spent=self._spent
        )
        self._report.reconfigured(self._keys)
        self._events.subscribe(self._report, Throttled)
        self._quota = Quota(
            self._settings, state=self._state, events=self._events, report=lambda: self._report
        )
        self._assembly = self._assemble(self._settings, self._keys)
        #: Of the client in place, by whatever configurations it has had.
        self._users = Users()
        self._quota.serve(self._assembly.client)
        self._remember()
        self._pacer = Pacer(limits(self._settings), clock=self._clock.monotonic)
        self._events.subscribe(self._pacer, Admitted)
        self._app = GatewayApp(self._runtime(), control=self, pacer=self._pacer)
        self._server = Server(self._app, wall_clock=self._clock.wall, bounds=bounds_for(operators))
        self._monitoring = self._monitor()
        self._life = Lifecycle(sources.environment, clock=self._clock)
        self._listeners: Listeners
        self._next = self._succession()
        self._spool: SpoolChild | None = None
        self._reloading = asyncio.Lock()
        # One that waits for its turn, and has read nothing: it reads what all who ask meanwhile mean.
        self._due: asyncio.Task[tuple[bool, dict[str, Any]]] | None = None

    def _remember(self) -> None:
        """What counts for the next process too is kept from now on."""
        self._window = WindowMemory(
            self._state,
            limit_rpm=self._quota.most,
            counts_tokens=self._settings.performance.token_limit_tpm is not None,
        )
        self._limit_memory = LimitMemory(self._state)
        self._events.subscribe_each(self._window.listeners)
        self._events.subscribe(self._limit_memory, *self._limit_memory.kinds)

    def _monitor(self) -> Monitoring:
        return Monitoring(
            self._settings,
            state=self._state,
            events=self._events,
            look=self._look,
            upstreams=self._told_of_upstreams,
            shared=self._quota.told,
            clock=self._clock,
        )

    def _assemble(self, settings: Settings, keys: KeyPair, *, before: Assembly | None = None) -> Assembly:
        provider = key_provider(keys, reload=partial(self._sources.fresh_key, api=settings.api))
        others = other_upstreams(settings, keys.others, sources=self._sources)
        return assemble(
            settings,
            provider,
            state=self._state,
            events=self._events,
            others=others,
            predecessor=None if before is None else before.client,
            window=self._quota.window,
            escrow=self._quota.escrow,
            clock=self._clock,
            random_source=self._random,
        )

    def _stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = self._assembly.client.get_stats()
        return stats

    async def _spent(self) -> Spent:
        return await self._monitoring.observer.spent()

    def _runtime(self) -> Runtime:
        return runtime_of(
            self._settings,
            self._assembly.client,
            users=self._users,
            operators=self._operators,
            clock=self._clock,
        )

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT, or until another process has taken over: the exit code.

        Raises ListenError, HandoverError where this process may not take over, and EOFError where the one before it
        is gone before it handed over.
        """
        start_logs(self._settings)
        self._life.handle_signals(self.reload)
        heir = self._heir = Inheritance.take(self._sources.environment)
        environment = self._sources.environment
        self._listeners = heir.listeners() if heir else open_listeners(self._settings.gateway, environment)
        try:
            await self._begin(heir)
            await self._life.over.wait()
            if self._spool is not None:
                await self._spool.stop()
            drain_s = self._settings.gateway.drain_s
            if self._next.is_over:
                drain_s = await self._next.run_out(self._listeners, limit_s=HANDOVER_DRAIN_S, stop_s=drain_s)
            elif heir is not None and heir.is_orphan:
                drain_s = await self._next.finish(stop_s=drain_s)
            await self._drain(drain_s)
        finally:
            await self._end()
        _log.info("stopped")
        return 0

    async def _begin(self, heir: Inheritance | None) -> None:
        if heir:
            window = await heir.wait_to_go(unfit=self._assembly.unfit(self._settings))
            self._life.in_background(heir.look_after(silent_s=self._life.silent_s))
        else:
            window = self._window.load(now_s=self._clock.wall())
        self._assembly.client.restore(window)
        self._limit_memory.begin(self._assembly.client, is_first=heir is None)
        self._quota.inherit(window)
        self._quota.start()
        self._server.on_tick = self._life.on_tick
        note_again = lambda _: self._limit_memory.note_again(self._assembly.client)  # noqa: E731
        self._life.on_tick_too(ClockSteps(self._clock, (self._window.shift, note_again)).look)
        self._life.on_tick_too(lambda: self._limit_memory.try_again(self._assembly.client))
        self._server.unread_s = self._unread_s
        await self._monitoring.metrics.start(heir.metrics() if heir else None)
        await self._server.start(self._listeners.all())
        if heir:
            await heir.say_serving()
        where = self._listeners.describe()
        self._life.notifier.ready(f"serving on {where}")
        _log.info("serving", extra=json_log.fields({"where": where, "took_over": heir is not None}))
        self._life.in_background(self._monitoring.watch_certificate(lambda: self._settings))
        self._life.in_background(keep_fresh(self._sources.tokens, self._renew))
        if not self._life.notifier.is_active:
            self._announce(Places.of(self._listeners, self._monitoring.metrics.listening))
        if self._settings.batch.mode and self._sources.config_path is not None:
            self._spool = SpoolChild(self._sources.config_path, key_file=self._sources.key_file)
            self._spool.start()

    async def _end(self) -> None:
        """All of it, whatever befalls a part."""
        async with AsyncExitStack() as ends:  # the last one first
            ends.callback(self._close_listeners)
            if self._heir is not None:
                ends.callback(self._heir.close)
            ends.push_async_callback(self._next.aclose)
            ends.push_async_callback(self._monitoring.aclose)
            ends.callback(self._window.close)
            ends.callback(self._limit_memory.close)
            ends.push_async_callback(self._assembly.aclose)
            ends.push_async_callback(self._monitoring.metrics.stop)
            ends.push_async_callback(self._quota.stop)
            await self._life.end_tasks()

    def _close_listeners(self) -> None:
        self._listeners.close(keep_path=self._next.is_over)

    def _succession(self) -> Succession:
        parts = Parts(
            server=self._server,
            app=self._app,
            metrics=self._monitoring.metrics,
            quota=self._quota,
            window=self._window,
            limits=self._limit_memory,
            life=self._life,
            client=lambda: self._assembly.client,
            looks_after=lambda: self._heir is not None and self._heir.looks_after,
        )
        return Succession(parts, clock=self._clock)

    async def _hand_over(self) -> int:
        """Let a new process serve, of the release that is in place now: its pid. Raises HandoverError."""
        pid = await self._next.hand_over(
            self._listeners, launch=self._sources.launch, environment=self._sources.environment
        )
        if self._heir is not None:
            self._heir.say_followed()
        return pid

    def _look(self, certificate_expires_at_s: float | None) -> ServiceState:
        return ServiceState(
            connections=self._server.connections,
            requests_in_flight=self._server.requests_in_flight,
            faults=self._server.faults,
            refused_connections=self._server.refused,
            refused_bodies=self._app.bodies.refused,
            ended_predecessors=int(self._heir is not None and self._heir.has_ended_it),
            quota=self._quota.status(),
            shared_budgets=self._quota.budgets(),
            client=self._assembly.client.get_stats(),
            certificate_expires_at_s=certificate_expires_at_s,
        )

    async def _renew(self) -> None:
        """Put new access tokens in place. Raises KeyMissingError."""
        async with self._reloading:
            keys = await asyncio.to_thread(self._sources.keys_for, self._settings)
            if keys != self._keys and not self._next.is_over:
                told = self._take(self._settings, keys)
                _log.info(
                    "token_renewed", extra=json_log.fields({"key_fingerprint": told["key_fingerprint"]})
                )

    async def _drain(self, drain_s: float) -> None:
        self._life.notifier.stopping(f"draining {self._server.requests_in_flight} requests")
        self._life.notifier.extend(drain_s + 5)
        self._app.is_draining = True
        self._close_listeners()
        _log.info("draining", extra=json_log.fields({"requests": self._server.requests_in_flight}))
        cut = await self._server.drain(limit_s=drain_s)
        if cut:
            _log.warning("drain_cut_off", extra=json_log.fields({"requests": cut, "drain_seconds": drain_s}))

    def _unread_s(self) -> float:
        """How long an answer may stay unread: a stream holds a place upstream, for which others may wait."""
        return UNREAD_S if self._assembly.client.get_stats()["queued"] == 0 else UNREAD_BUSY_S

    async def reload(self) -> tuple[bool, dict[str, Any]]:
        """Read configuration and key anew and put them in place together; where either is wrong, change nothing.

        Goes on to its end where who asked for it leaves. Who asks while one is due gets the answer of that one.
        """
        if self._due is None:
            self._due = self._life.in_background(self._reload())
        return await asyncio.shield(self._due)

    async def _reload(self) -> tuple[bool, dict[str, Any]]:
        async with self._reloading:
            self._due = None
            self._life.notifier.reloading()
            try:
                config = await self._config.settled()
                # Another release first: the configuration may be written for that one alone, which reads it itself.
                told = await self._replace_by_release()
                if told is None:
                    told = self._take(*await asyncio.to_thread(self._sources.read, config))
                    self._config.in_use = config
            except FAILURES as exc:
                failed = failed_reload(exc)
                self._monitoring.observer.recorder.reloaded(is_ok=False)
                self._life.notifier.ready(failed.state)
                _log.error(failed.event, extra=json_log.fields({"reason": str(exc)}))
                return False, {"ok": False, "error": failed.error}
            self._monitoring.observer.recorder.reloaded(is_ok=True)
            self._monitoring.checkup.forget()
            self._monitoring.upstreams.reconfigure(self._settings)
            if not self._next.is_over:
                self._life.notifier.ready("serving")
            _log.info("reloaded", extra=json_log.fields(told))
            return True, {"ok": True, **told}

    async def _replace_by_release(self) -> dict[str, Any] | None:
        """Where another release was put in place: hand over to it, or say that it takes a restart."""
        if not self._sources.launch.is_replaced() or self._next.is_over:
            return None
        if not self._life.notifier.is_active:
            # Without a manager that can be told, whoever waits for this process would think the service gone.
            return {"changed": ["release"], "restart_needed": True}
        return {"changed": ["release"], "restart_needed": False, "pid": await self._hand_over()}

    def _take(self, settings: Settings, keys: KeyPair) -> dict[str, Any]:
        """Put both in place, and tell what changed. No connection is dropped, no window is opened."""
        # What may be refused comes first.
        endpoint = self._quota.endpoint_for(settings)
        found = changes(self._settings, settings)
        changed = [*found.sections, *(["key"] if keys != self._keys else [])]
        if found.needs_client:
            # Those who wait in the old client and those who come to the new one stand in one queue.
            after = self._assemble(settings, keys, before=self._assembly)
            before, users = self._assembly, self._users
            self._assembly, self._users = after, Users()
            self._quota.serve(after.client)
            self._life.in_background(retire(before, users))
        else:
            self._assembly.reconfigure(settings, keys)
        self._quota.reload(settings, endpoint)
        if settings.logging != self._settings.logging:
            start_logs(settings)
        self._settings, self._keys = settings, keys
        self._report.reconfigured(keys)
        self._monitoring.observer.settings = settings
        self._pacer.pace.limits = limits(settings)
        self._window.reconfigure(
            limit_rpm=self._quota.most,
            counts_tokens=settings.performance.token_limit_tpm is not None,
        )
        self._app.runtime = self._runtime()
        return {
            "changed": changed,
            "restart_needed": found.needs_process,
            "key_fingerprint": keys.current.fingerprint,
        }

    async def health(self) -> dict[str, Any]:
        """All checks, as the checkup has them."""
        report = await self._monitoring.checkup.report(
            self._settings, self._keys.current, self._assembly.client.send
        )
        report = with_check(report, "coordination", self._quota.check())
        return {**report, "upstreams": self._told_of_upstreams()} if self._settings.upstreams else report

    async def fleet(self) -> dict[str, Any]:
        """What the hosts that share the quota say of themselves, or why that is not known."""
        return await self._quota.told_of_fleet()

    async def forget(self, host: str) -> dict[str, Any]:
        """Takes a host out of the shared quota that is gone for good, or says why not."""
        return await self._quota.told_to_forget(host)

    async def status(self) -> dict[str, Any]:
        """For the status page."""
        return await self._monitoring.observer.status()

    def _told_of_upstreams(self) -> list[dict[str, Any]]:
        client = self._assembly.client
        models = client.get_stats()["models"]
        return self._monitoring.upstreams.report(
            self._settings, self._keys, parked=client.parked(), models=models
        )


async def run_service(sources: Sources, *, announce: Callable[[Places], None] = lambda _: None) -> int:
    """Run the service until it is told to stop: the exit code. `announce` is called once, when it accepts callers.

    Raises ConfigError, KeyMissingError or ListenError.
    """
    spare_the_collector()
    return await Service(sources, operators=frozenset({0, os.geteuid()}), announce=announce).run()
