"""One run: a service, its callers, its provider, its disk and its operator, all from one seed.

`World(seed).run()` plays it; what was broken is in `broken`, and `story` tells it with what had happened before.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import math
import random
import shutil
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from ai_client.audit.chain import verify
from ai_client.configure.assembly import LEDGER_NAME
from ai_client.contract.events import (
    Admitted,
    BreakerChanged,
    Failed,
    FellBack,
    Retried,
    Sent,
    Settled,
)
from ai_client.gateway.process.service import Service
from ai_client.ledger.ledger import SpendLedger
from ai_client.ledger.prices import Prices
from tests.client.gateway.simulation.callers import TENANTS, Caller, Ending
from tests.client.gateway.simulation.channel import fate_of
from tests.client.gateway.simulation.checks import check_all, is_left_alone
from tests.client.gateway.simulation.disk import Disk
from tests.client.gateway.simulation.loop import SimLoop, StuckError
from tests.client.gateway.simulation.network import FakeSocket, Network
from tests.client.gateway.simulation.processes import METRICS, Processes, SimClock, lay
from tests.client.gateway.simulation.provider import DAYS, Provider

UPSTREAM = ("upstream.test", 80)
QUIET_S = 70.0
_NOTED = (Admitted, Sent, Settled, Failed, Retried, FellBack, BreakerChanged)
CHANGES = ("reload", "limits", "budget", "hand over")
_FASTEST = Path("/dev/shm")


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class World:
    """See the module."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)  # noqa: S311 - a simulation's
        #: Which processes stand after they have handed over: of its own, so that nothing else depends on it.
        self._stands = random.Random(f"{seed} then")  # noqa: S311 - a simulation's
        self.log: list[str] = []
        self.broken: list[str] = []
        #: Of each process.
        self.events: list[list[tuple[float, Any]]] = []
        self.callers: list[Caller] = []
        #: Limits a minute that the configuration had: from when, to when somebody may still have served by it.
        self.rates: list[list[float]] = []
        self.disk = Disk()
        self.network = Network(self._source())
        self.loop = SimLoop(self.network, self._source())
        self.provider = Provider(self.loop, self._source(), say=self.say)
        self.folder = Path(tempfile.mkdtemp(prefix="gateway-", dir=_FASTEST if _FASTEST.is_dir() else None))
        self.knobs = self._knobs()
        self.processes = Processes(self.folder, self.loop, self._source(), disk=self.disk, say=self.say)
        self.processes.on_service = self._listen
        self.busy_s = self.random.choice([20.0, 60.0, 150.0])

    def _source(self) -> random.Random:
        return random.Random(self.random.random())  # noqa: S311 - a simulation's

    def say(self, text: str) -> None:
        self.log.append(f"{self.loop.time() - 1000:9.3f} {text}")

    @property
    def endings(self) -> list[Ending]:
        return [ending for caller in self.callers for ending in caller.endings]

    def _knobs(self) -> dict[str, Any]:
        choose = self.random.choice
        return {
            "rpm": choose([20, 60, 6000]),
            "concurrent": choose([1, 3, 10, 50]),
            "pool": choose([1, 4, 50]),
            "retries": choose([0, 1, 3]),
            "caching": choose(["true", "false"]),
            "fallback": choose(["gpt-4.1", "deepseek-v3.2"]),
            "daily_usd": choose([0.02, 0.2, 100]),
            "poor_usd": choose([0.0005, 0.01]),
        }

    def run(self) -> World:
        """Play it, and look whether all was kept."""
        descriptors = _descriptors()
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._live())
            self._look_back()
        except (StuckError, OSError, RuntimeError, ValueError, AttributeError, KeyError) as error:
            self.broken.append(repr(error))
        finally:
            self._end()
        if (now := _descriptors()) > descriptors:
            self.broken.append(f"{now - descriptors} descriptors are left")
        return self

    def _end(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        asyncio.set_event_loop(None)
        self.loop.close()
        self.events.clear()
        for process in self.processes.manager.processes:
            process.bury()
        gc.collect()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _live(self) -> None:
        for name in ("cache", "log", "state"):
            (self.folder / name).mkdir()
        self._lay()
        upstream = FakeSocket(UPSTREAM, self.network, family=2)
        server = await self.loop.create_server(self.provider, sock=upstream)
        with self.processes.played():
            self.processes.manager.start()
            await asyncio.sleep(0.5)
            ups_and_downs = [self.loop.create_task(each) for each in (self._weather(), self._operate())]
            await self._call()
            await asyncio.gather(*ups_and_downs)
            await self._settle()
            check_all(self)
            await self.processes.manager.stop()
        self.processes.close()
        server.close()
        upstream.close()
        await asyncio.sleep(2)

    def _lay(self) -> None:
        self.rates.append([self.knobs["rpm"], self.loop.time(), math.inf])
        lay(self.folder, self.knobs)

    def _is_read(self) -> None:
        """All that serve have read what was laid last."""
        for rate in self.rates[:-1]:
            rate[2] = min(rate[2], self.loop.time())

    def _listen(self, service: Service) -> None:
        events: list[tuple[float, Any]] = []
        self.events.append(events)
        service._events.subscribe(lambda event: events.append((self.loop.time(), event)), *_NOTED)

    # What happens.

    async def _call(self) -> None:
        """Callers come for a while."""
        tasks = []
        end_s = self.loop.time() + self.busy_s
        mean_s = self.random.choice([0.1, 0.5, 2.0])
        while self.loop.time() < end_s and len(tasks) < 100:
            name = f"c{len(self.callers)}"
            caller = Caller(
                self.loop,
                self._source(),
                name=name,
                tenant=self.random.choice(list(TENANTS)),
                say=self.say,
            )
            self.callers.append(caller)
            tasks.append(self.loop.create_task(caller.run()))
            if self.random.random() < 0.7:
                await asyncio.sleep(self.random.expovariate(1 / mean_s))
        await asyncio.gather(*tasks)

    async def _weather(self) -> None:
        """Provider, network and disk have good and bad times, and a good one in the end."""
        end_s = self.loop.time() + self.busy_s
        while self.loop.time() < end_s:
            choose = self.random.choice
            self.provider.day = choose([*DAYS, "usual", "usual"])
            self.network.trouble = choose([""] * 10 + ["hang", "names", errno.ECONNREFUSED, errno.EMFILE])
            self.network.latency_s = choose([0.0, 0.0, 0.05])
            self.disk.trouble = choose([""] * 6 + ["full", "broken", "busy"])
            self.say(
                f"a {self.provider.day} day, network {self.network.trouble!r}, disk {self.disk.trouble!r}"
            )
            await asyncio.sleep(choose([1.0, 5.0, 20.0]))
        self.provider.day, self.network.trouble, self.disk.trouble = "calm", "", ""
        self.network.latency_s = 0.0
        self.say("all is well")

    async def _operate(self) -> None:
        """Reloads, hand-overs, scrapes."""
        end_s = self.loop.time() + self.busy_s
        while self.loop.time() < end_s:
            await asyncio.sleep(self.random.choice([3.0, 15.0, 40.0]))
            what = self.random.choice(
                [*CHANGES, *CHANGES, "several", "scrape", "health", "status", "restart", "kill", "kill soon"]
            )
            self.say(f"operator: {what}")
            await self._do(what)

    async def _do(self, what: str) -> None:
        if what in ("scrape", "health", "status"):
            path = {"scrape": "/metrics", "health": "/health", "status": "/status.json"}[what]
            await self._ask(path, METRICS if what == "scrape" else None)
            return
        if what in ("kill", "kill soon", "restart"):
            await self._end_main(what)
            return
        if what == "several":
            each = [self.random.choice(CHANGES) for _ in range(self.random.choice([2, 3, 5]))]
            self.say(f"operator: {each}")
            await asyncio.gather(*[self._change(change) for change in each])
            return
        await self._change(what)

    async def _end_main(self, what: str) -> None:
        manager = self.processes.manager
        if what == "restart":
            await manager.restart()
        elif manager.main is not None and what == "kill":
            manager.main.die("of kill -9")
        elif manager.main is not None:
            manager.main.fate = (manager.main.steps + round(10 ** self.random.uniform(0, 4)), "dies")

    async def _change(self, what: str) -> None:
        """Another configuration or release, and the reload that puts it in place."""
        if what == "limits":
            self.knobs["rpm"] = self.random.choice([20, 60, 6000])
            self.knobs["concurrent"] = self.random.choice([1, 3, 10, 50])
        elif what == "budget":
            self.knobs["daily_usd"] = self.random.choice([0.02, 0.2, 100])
        self._lay()
        main = self.processes.manager.main
        if what == "hand over":
            self.processes.is_replaced = True
            if main is not None and main.fate is None and (fate := fate_of(self.random)) is not None:
                main.fate = (main.steps + fate[0], fate[1])
                self.say(f"the main process: {main.fate}, at {main.steps}")
        laid = len(self.rates)
        status = await self._ask("/control/reload", None, method="POST")
        self.processes.is_replaced = False
        if status == 200 and laid == len(self.rates):
            self._is_read()
        is_over = what == "hand over" and status == 200
        if self.seed % 2 and is_over and main is not None and self._stands.random() < 0.3:
            # While it ends its streams, if it has any left. In every other world: the rest is as it was without.
            main.fate = (main.steps + round(10 ** self._stands.uniform(0, 3)), "freezes")
        self.say(f"operator: {what} gave {status}")

    async def _ask(self, path: str, address: Any, *, method: str = "GET") -> int:
        """As root, over the Unix socket."""
        from tests.client.gateway.simulation.callers import UNIX, Line  # noqa: PLC0415

        line = Line(self.loop)
        try:
            self.loop.played(address or UNIX, lambda: line, uid=0)
        except ConnectionRefusedError:
            if self.processes.services and not self.processes.manager.has_just_started:
                self.broken.append(f"{path} was refused")
            return 0
        line.transport.write(
            f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n".encode()
        )
        end_s = self.loop.time() + 120
        while not line.is_whole and not line.is_lost and self.loop.time() < end_s:
            await line.news(end_s)
        far = line.transport.peer
        hangs = not line.is_lost and not (far.process is not None and is_left_alone(self, far.process))
        # Where the last one who held the socket has died, who still waited for it is reset.
        was_killed = far.stands or far.process is None
        if not line.is_whole and (hangs or not was_killed):
            self.broken.append(f"{path} got no answer")
        line.transport.abort()
        return line.status

    async def _settle(self) -> None:
        """Nobody calls any more: what was begun ends."""
        await asyncio.sleep(QUIET_S)

    # What must be true after all has ended.

    def _look_back(self) -> None:
        broken = self.broken
        processes = self.processes.manager.processes
        broken += self.processes.faults
        dead = {task for process in processes if process.was_killed for task in process.tasks}
        left = [repr(task.get_coro()) for task in asyncio.all_tasks(self.loop) - dead]
        if left:
            broken.append(f"{len(left)} tasks are left: {left[:3]}")
        if self.network.open:
            broken.append(f"connections are left: {Counter(self.network.open.values())}")
        report = verify(self.folder / "log")
        if report.problems:
            broken.append(f"the audit trail is broken: {report.problems[:3]}")
        self._check_money()
        if self.loop.faults:
            broken.append(f"the loop was told of faults: {self.loop.faults[:3]}")

    def _check_money(self) -> None:
        # What a process could not write as it ended, the next one's start books.
        SpendLedger(self.folder / "state" / LEDGER_NAME, prices=Prices({}), clock=SimClock(self.loop)).close()
        with sqlite3.connect(f"file:{self.folder}/state/ledger.sqlite?mode=ro", uri=True) as db:
            rows = db.execute("SELECT fate, tenant, reserved_nusd, cost_nusd FROM entry").fetchall()
        db.close()
        self._check_booked(rows)

    def _check_booked(self, rows: list[tuple[int, str, int, int]]) -> None:
        from ai_client.ledger.owner import Fate  # noqa: PLC0415

        still_open = [row for row in rows if row[0] == Fate.SENT]
        if still_open:
            self.broken.append(f"{len(still_open)} entries of the ledger were never ended")
        booked: Counter[str] = Counter()
        for _, tenant, _, cost in rows:
            booked[tenant] += cost or 0
        billed: Counter[str] = Counter()
        for bill in self.provider.bills:
            billed[bill.tenant] += bill.nusd
        for tenant, nusd in billed.items():
            if nusd > booked[tenant]:
                self.broken.append(f"{tenant} was billed {nusd} n$ and booked {booked[tenant]} n$")
        most = int(max(self.poor_limits()) * 1e9)
        if booked["poor"] > most or billed["poor"] > most:
            self.broken.append(f"poor was booked {booked['poor']}, billed {billed['poor']}, of {most} n$")

    def poor_limits(self) -> list[float]:
        return [float(self.knobs["poor_usd"])]

    def story(self) -> str:
        """What was broken, and what had happened."""
        return "\n".join([f"seed {self.seed}: " + "; ".join(self.broken), *self.log])
