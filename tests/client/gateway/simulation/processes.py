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

from ai_client.admission.meter_log import MeterLog
from ai_client.admission.sent_log import SentLog
from ai_client.configure.launch import Launch
from ai_client.configure.sources import Sources
from ai_client.gateway.http.sockets import ListenError, Listeners
from ai_client.gateway.process.handover import HandoverError
from ai_client.gateway.process.service import Service
from ai_client.platform.clock import Timer
from ai_client.settings import ConfigError
from tests.client.gateway.simulation.callers import TCP, TENANTS, TOKEN, UNIX
from tests.client.gateway.simulation.channel import PlayedOs, PlayedSignal, PlayedSocket, PlayedSubprocess
from tests.client.gateway.simulation.disk import Disk, FaultyOs, faulty_transaction
from tests.client.gateway.simulation.loop import WALL_S, SimExecutor, SimLoop
from tests.client.gateway.simulation.manager import Manager, PlayedNotifier
from tests.client.gateway.simulation.network import FakeSocket, Network
from tests.client.gateway.simulation.process import OwnedOs, OwnedSqlite, Process, owned
from tests.client.service_rig import TEST_KEY

METRICS = ("127.0.0.1", 9090)


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


class _Launch(Launch):
    """Whether another release is in place is said by the simulation."""

    def is_replaced(self) -> bool:
        return bool(Processes.current and Processes.current.is_replaced)


class Processes:
    """Those of one unit, the last of which serves."""

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
        self.faults: list[str] = []
        self.on_service: Callable[[Service], None] = lambda _: None
        self.network: Network = loop.network
        self.manager = Manager(loop, say=say, begin=self._begin)
        self._sockets = [FakeSocket(UNIX, loop.network, family=1), FakeSocket(TCP, loop.network, family=2)]

    @property
    def services(self) -> list[Service]:
        """Of those that live and do not stand."""
        group = [each for each in self.manager.group if not each.is_frozen]
        return [each.service for each in group if each.service is not None]

    def _begin(self, process: Process, environment: dict[str, str]) -> None:
        work = self._run(process, environment)
        process.main_task = self.loop.create_task(work, context=process.context.copy())

    async def _run(self, process: Process, environment: dict[str, str]) -> None:
        """As `ai-client serve` does."""
        await asyncio.sleep(self.random.uniform(0.02, 0.3))
        try:
            process.service = service = self._service(environment)
            self.on_service(service)
            await service.run()
        except EOFError:
            process.die("as the one before it is gone")
        except HandoverError:
            process.die("as it would serve nobody")
        except (OSError, ListenError, ConfigError) as error:
            if not self.disk.trouble:
                self.faults.append(f"process {process.pid} ended with {error!r}")
            process.die(f"of {error!r}")
        else:
            self.say(f"process {process.pid} ends")
            process.end()

    def _service(self, environment: dict[str, str]) -> Service:
        sources = Sources(
            config_path=self.folder / "ai-client.conf",
            key_file=self.folder / "key",
            environment={"STATE_DIRECTORY": str(self.folder / "state"), **environment},
            launch=_Launch(("ai-client",), Path("ai-client"), Path("ai-client")),
        )
        return Service(
            sources,
            operators=frozenset({0}),
            announce=lambda _: None,
            clock=SimClock(self.loop),
            random_source=random.Random(self.random.random()),  # noqa: S311 - a simulation's
        )

    def close(self) -> None:
        """The manager's sockets."""
        for sock in self._sockets:
            sock.close()

    def open_listeners(self, *_: object) -> Listeners:
        unix, tcp = (sock.dup() for sock in self._sockets)
        return Listeners(unix, tcp, None)  # type: ignore[arg-type]

    def bind_metrics(self, *_: object, **__: object) -> FakeSocket:
        return FakeSocket(METRICS, self.network, family=2)

    @contextmanager
    def played(self) -> Iterator[None]:
        """While it lasts, sockets, threads, processes and disk are those of the simulation."""
        with ExitStack() as stack:
            for name, value in self._played().items():
                stack.enter_context(patch(f"ai_client.{name}", value))
            Manager.current = self.manager
            Processes.current = self
            try:
                yield
            finally:
                Processes.current = Manager.current = None

    def _played(self) -> dict[str, Any]:
        system = OwnedOs(self.disk)
        return {
            "gateway.process.service.open_listeners": self.open_listeners,
            "gateway.process.service.start_logs": lambda _: None,
            "gateway.process.service.HANDOVER_DRAIN_S": 90.0,
            "gateway.process.handover.socket": PlayedSocket(self.network),
            "gateway.process.handover.os": PlayedOs(self.network),
            "gateway.process.handover.subprocess": PlayedSubprocess(self.network, self.random),
            "gateway.process.process_handle.os": PlayedOs(self.network),
            "gateway.process.process_handle.signal": PlayedSignal(self.network),
            "gateway.process.lifecycle.Notifier": PlayedNotifier,
            "gateway.process.window_memory.SentLog": owned(SentLog),
            "gateway.process.limit_memory.MeterLog": owned(MeterLog),
            "gateway.watch.metrics_listener.bind_tcp": self.bind_metrics,
            "cache.writer.ThreadPoolExecutor": SimExecutor,
            "cache.writer._GATHER_S": 0,
            "cache.file.sqlite3": OwnedSqlite(),
            "ledger.upkeep.ThreadPoolExecutor": SimExecutor,
            "ledger.book.Transaction": faulty_transaction(self.disk),
            "ledger.schema.sqlite3": OwnedSqlite(),
            "ledger.usage.sqlite3": OwnedSqlite(),
            "stored.homes_file.sqlite3": OwnedSqlite(),
            "ledger.file.os": system,
            "ledger.owner.os": system,
            "admission.sent_log.os": FaultyOs(self.disk),
            "admission.meter_log.os": FaultyOs(self.disk),
            "audit.trail.os": system,
        }


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
