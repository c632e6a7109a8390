"""The service's processes, all in this one: each a real `Service`, one of which hands over to the next."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ai_client.configure.launch import Launch
from ai_client.configure.sources import Sources
from ai_client.gateway.http.sockets import Listeners
from ai_client.gateway.process import service as service_module
from ai_client.gateway.process.handover import HandoverError
from ai_client.gateway.process.service import Service
from ai_client.platform.clock import Timer
from tests.client.gateway.simulation.callers import TCP, TENANTS, TOKEN, UNIX
from tests.client.gateway.simulation.disk import Disk, FaultyOs, faulty_transaction
from tests.client.gateway.simulation.loop import WALL_S, SimExecutor, SimLoop
from tests.client.gateway.simulation.network import FakeSocket, Network
from tests.client.service_rig import TEST_KEY

METRICS = ("127.0.0.1", 9090)
_HEIR = "PLAYED_HEIR"


class SimClock:
    """The loop's time as a clock of the client."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self.monotonic = loop.time

    def wall(self) -> float:
        return WALL_S + self._loop.time() - 1000.0

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Timer:
        return self._loop.call_at(when_s, callback)

    async def sleep_until(self, when_s: float) -> None:
        await asyncio.sleep(max(0.0, when_s - self._loop.time()))


class _Notifier:
    """A manager that listens and says nothing."""

    watchdog_s = None
    is_active = True

    def __init__(self, environment: object) -> None:
        del environment

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class _Launch(Launch):
    """Whether another release is in place is said by the simulation."""

    def is_replaced(self) -> bool:
        return bool(Processes.current and Processes.current.is_replaced)


class _Successor:
    """As `handover.Successor`, with a process that is played."""

    pid = 4242

    def __init__(self, heir: _Heir, task: asyncio.Task[int]) -> None:
        self._heir = heir
        self._task = task

    @classmethod
    async def start(cls, launch: object, *, environment: object, estate: Any) -> _Successor:
        del launch, environment
        processes = Processes.current
        assert processes is not None
        fate = processes.fate()
        processes.say(f"hand-over: {fate}")
        if fate == "does not start":
            await asyncio.sleep(1)
            raise HandoverError("the next process ended before it was ready; see its log")
        heir = _Heir(estate, fate)
        task = processes.start(heir)
        await asyncio.wait([heir.ready, task], return_when=asyncio.FIRST_COMPLETED)
        return cls(heir, task)

    async def go(self, window: Mapping[str, Any]) -> None:
        self._heir.window.set_result(dict(window))
        await asyncio.wait([self._heir.serving, self._task], return_when=asyncio.FIRST_COMPLETED)
        if not self._heir.serving.done():
            raise HandoverError("the next process ended before it was serving; see its log")

    def part(self) -> None:
        """Nothing more is said."""


class _Heir:
    """As `handover.Inheritance`."""

    def __init__(self, estate: Any, fate: str) -> None:
        loop = asyncio.get_running_loop()
        self._sockets = {name: sock.dup() for name, sock in estate.sockets.items()}
        self._fate = fate
        self.ready: asyncio.Future[None] = loop.create_future()
        self.window: asyncio.Future[dict[str, Any]] = loop.create_future()
        self.serving: asyncio.Future[None] = loop.create_future()

    def listeners(self) -> Listeners:
        return Listeners(self._sockets["gateway"], self._sockets.get("gateway-tcp"), None)

    def metrics(self) -> Any:
        return self._sockets.get("metrics")

    async def wait_to_go(self) -> dict[str, Any]:
        await asyncio.sleep(0.5)
        self.ready.set_result(None)
        window = await self.window
        if self._fate == "dies before it serves":
            self._close()
            raise EOFError
        return window

    def _close(self) -> None:
        if "metrics" in self._sockets:
            self._sockets["metrics"].close()

    async def say_serving(self) -> None:
        self.serving.set_result(None)


class Processes:
    """Those that have been started, the last of which serves."""

    current: Processes | None = None

    def __init__(
        self, folder: Path, loop: SimLoop, source: random.Random, *, disk: Disk, say: Callable[[str], None]
    ) -> None:
        self.folder = folder
        self.loop = loop
        self.random = source
        self.disk = disk
        self.say = say
        self.is_replaced = False
        self.services: list[Service] = []
        self.tasks: list[asyncio.Task[int]] = []
        self._heirs: dict[str, _Heir] = {}
        self.on_service: Callable[[Service], None] = lambda _: None
        self._network: Network = loop.network

    @property
    def serving(self) -> Service:
        """The one that accepts."""
        return next(service for service in reversed(self.services) if not service._has_handed_over)

    def fate(self) -> str:
        return self.random.choice(["serves", "serves", "serves", "does not start", "dies before it serves"])

    def start(self, heir: _Heir | None = None) -> asyncio.Task[int]:
        """A process more."""
        environment = {"STATE_DIRECTORY": str(self.folder / "state")}
        if heir is not None:
            environment[_HEIR] = str(len(self._heirs))
            self._heirs[environment[_HEIR]] = heir
        sources = Sources(
            config_path=self.folder / "ai-client.conf",
            key_file=self.folder / "key",
            environment=environment,
            launch=_Launch(("ai-client",), Path("ai-client"), Path("ai-client")),
        )
        service = Service(
            sources,
            operators=frozenset({0}),
            announce=lambda _: None,
            clock=SimClock(self.loop),
            random_source=random.Random(self.random.random()),  # noqa: S311 - a simulation's
        )
        self.services.append(service)
        self.on_service(service)
        task = self.loop.create_task(self._run(service))
        self.tasks.append(task)
        return task

    async def _run(self, service: Service) -> int:
        try:
            return await service.run()
        except EOFError:
            self.services.remove(service)
            return 1

    def take(self, environment: Mapping[str, str]) -> _Heir | None:
        return self._heirs.get(environment.get(_HEIR, ""))

    def open_listeners(self, *_: object) -> Listeners:
        unix = FakeSocket(UNIX, self._network, family=1)
        return Listeners(unix, FakeSocket(TCP, self._network, family=2), None)  # type: ignore[arg-type]

    def bind_metrics(self, *_: object, **__: object) -> FakeSocket:
        return FakeSocket(METRICS, self._network, family=2)

    @contextmanager
    def played(self) -> Iterator[None]:
        """While it lasts, sockets, threads and disk are those of the simulation."""
        inheritance = type("_Inheritance", (), {"take": self.take})
        with ExitStack() as stack:
            put = lambda name, value: stack.enter_context(patch(name, value))  # noqa: E731
            base = service_module.__name__
            put(f"{base}.open_listeners", self.open_listeners)
            put(f"{base}.Inheritance", inheritance)
            put(f"{base}.Successor", _Successor)
            put("ai_client.gateway.process.lifecycle.Notifier", _Notifier)
            put(f"{base}.start_logs", lambda _: None)
            put(f"{base}.HANDOVER_DRAIN_S", 90.0)
            put("ai_client.gateway.watch.metrics_listener.bind_tcp", self.bind_metrics)
            put("ai_client.cache.writer.ThreadPoolExecutor", SimExecutor)
            put("ai_client.cache.writer._GATHER_S", 0)
            put("ai_client.ledger.upkeep.ThreadPoolExecutor", SimExecutor)
            put("ai_client.ledger.book.Transaction", faulty_transaction(self.disk))
            put("ai_client.audit.trail.os", FaultyOs(self.disk))
            Processes.current = self
            try:
                yield
            finally:
                Processes.current = None


def configuration(folder: Path, *, knobs: Mapping[str, object]) -> str:
    """The service's configuration; `knobs` are what seeds and reloads change."""
    token = hashlib.sha256(TOKEN.encode()).hexdigest()
    tenants = "".join(
        f"[tenant {name}]\n"
        + (f"token_sha256 = {token}\n" if uid is None else f"uid = {uid}\n")
        + (f"daily_usd = {knobs['poor_usd']}\n" if name == "poor" else "")
        for name, uid in TENANTS.items()
    )
    return f"""\
[api]
base_url = http://upstream.test:80/v1
timeout = 5
max_retries = {knobs["retries"]}
connection_pool_size = {knobs["pool"]}
pool_timeout = 2
keepalive_connections = {min(4, int(str(knobs["pool"])))}
keepalive_expiry = 20
[models]
default = gpt-4.1
fallback = {knobs["fallback"]}
[performance]
rate_limit = {knobs["rpm"]}
max_concurrent_requests = {knobs["concurrent"]}
read_timeout = 10
request_timeout_buffer = 1
connection_timeout = 3
[caching]
enabled = {knobs["caching"]}
cache_dir = {folder}/cache
[logging]
log_dir = {folder}/log
[gateway]
socket = {folder}/gateway.sock
port = 8800
drain_seconds = 30
unnamed_callers = allow
[monitoring]
metrics_port = 9090
{tenants}
[budget]
daily_usd = {knobs["daily_usd"]}
"""


def lay(folder: Path, knobs: Mapping[str, object], *, key: str = TEST_KEY) -> None:
    """Puts configuration and key into their place."""
    (folder / "ai-client.conf").write_text(configuration(folder, knobs=knobs))
    (folder / "key").write_text(key + "\n")
