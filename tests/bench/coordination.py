"""One quota for a fleet of real services, on a real engine: `python -m tests.bench.coordination`.

Services of equal shares, an upstream that counts arrivals, and callers that ask for 1.5 times the quota: from all
hosts alike, then from some of them, which change. Last, one host is told 429.
"""

import argparse
import asyncio
import os
import random
import tempfile
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import aiohttp

from ai_client.testing import Simulator
from ai_client.testing.faults import Fault
from tests.client.coordination.engine import RealEngine, programs
from tests.client.coordination.fleet import ELDER_SHARE, Elder, ended
from tests.client.service_rig import TOKEN, Rig, free_port, running_service, until

_WINDOW_S = 60.0
_DEMAND = 1.5
# Who is not admitted in that time asks no more.
_DEADLINE_S = 5.0
_PAUSE_S = 3
_LOOK_S = 0.02
# The bound holds at an upstream whose arrivals are not late by more: ai_client.admission.window.
_DELAY_MS = 100
_START_S = 120.0
_SEED = 15
_ACCOUNT = "bench"


@dataclass
class Demand:
    """What callers ask for: requests a second of each host; `weights` may be changed at any time."""

    services: Sequence[Rig]
    per_second: float
    weights: list[float]
    statuses: dict[int, int] = field(default_factory=dict)
    number: int = 0

    async def run(self) -> None:
        """Ask on and on, at random times, until it is cancelled."""
        source = random.Random(_SEED)  # noqa: S311 - times of requests
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
            next_s = loop.time()
            while True:
                next_s += source.expovariate(self.per_second)
                await asyncio.sleep(max(0.0, next_s - loop.time()))
                (rig,) = source.choices(self.services, self.weights)
                tasks.create_task(self._ask(session, rig))

    async def _ask(self, session: aiohttp.ClientSession, rig: Rig) -> None:
        self.number += 1
        body = {
            "model": "gpt-4.1",
            "messages": [{"role": "user", "content": f"{self.number}"}],
            "max_tokens": 1,
        }
        headers = {"authorization": f"Bearer {TOKEN}", "x-ai-deadline": f"{_DEADLINE_S}"}
        url = f"http://127.0.0.1:{rig.port}/v1/chat/completions"
        async with session.post(url, json=body, headers=headers) as answer:
            await answer.read()
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1


def fullest(arrivals: Sequence[float]) -> int:
    """The most arrivals in any 60 s."""
    return max(
        (at - bisect_left(arrivals, arrivals[at] - _WINDOW_S) for at in range(len(arrivals))), default=0
    )


def used(arrivals: Sequence[float], *, from_s: float, to_s: float, rpm: int) -> float:
    """The part of the quota that was used in that time."""
    return (bisect_left(arrivals, to_s) - bisect_left(arrivals, from_s)) / (rpm * (to_s - from_s) / 60)


@dataclass
class Lag:
    """The longest time that this process did not run when it had to: arrivals are seen that much too late."""

    longest_s: float = 0.0

    async def watch(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + _LOOK_S
            await asyncio.sleep(_LOOK_S)
            self.longest_s = max(self.longest_s, loop.time() - due_s)


@asynccontextmanager
async def fleet(
    folder: Path, *, program: str, hosts: int, share: int
) -> AsyncIterator[tuple[Simulator, list[Rig], RealEngine]]:
    """The services, the upstream and the engine."""
    port = free_port()
    engine = RealEngine(program, folder, "--port", str(port), "--bind", "127.0.0.1").start()
    try:
        async with AsyncExitStack() as stack:
            simulator = await stack.enter_async_context(Simulator())
            elder = Elder(port, account=_ACCOUNT)
            for _ in range(3):
                await elder.call()
            stack.push_async_callback(ended, asyncio.create_task(elder.keep()))
            services = []
            for number in range(hosts):
                place = folder / f"h{number}"
                place.mkdir()
                extra = (
                    f"rate_limit = {share}\nmax_concurrent_requests = 100\n[coordination]\n"
                    f"endpoint = redis://127.0.0.1:{port}\naccount = {_ACCOUNT}\nhost = h{number}\n"
                )
                services.append(
                    await stack.enter_async_context(
                        running_service(place, simulator, extra=extra, starts_within_s=_START_S)
                    )
                )
            yield simulator, services, engine
    finally:
        engine.stop()


async def calls_of(services: Sequence[Rig]) -> float:
    """How often all of them have called the engine."""
    total = 0.0
    async with aiohttp.ClientSession() as session:
        for rig in services:
            async with session.get(f"http://127.0.0.1:{rig.metrics_port}/metrics") as answer:
                lines = (await answer.text()).splitlines()
            total += sum(
                float(line.split()[1]) for line in lines if line.startswith("ai_client_quota_calls_total")
            )
    return total


async def measure(options: argparse.Namespace) -> bool:
    """All phases; whether the bound held."""
    loop, rpm = asyncio.get_running_loop(), options.hosts * options.share + ELDER_SHARE
    # Sockets have no room for a long path.
    with tempfile.TemporaryDirectory(prefix="acb-") as folder:
        async with fleet(Path(folder), program=options.engine, hosts=options.hosts, share=options.share) as (
            simulator,
            services,
            _,
        ):
            demand = Demand(services, _DEMAND * rpm / 60, [1.0] * options.hosts)
            asking, lag = asyncio.create_task(demand.run()), Lag()
            watching = asyncio.create_task(lag.watch())
            machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
            engine = Path(options.engine).name
            print(f"{options.hosts} services of {options.share} a minute, {engine}, {machine}", flush=True)
            await asyncio.sleep(options.beginning_s)
            marks, calls = [loop.time()], await calls_of(services)
            await asyncio.sleep(options.steady_s)
            marks.append(loop.time())
            calls = await calls_of(services) - calls
            source = random.Random(_SEED)  # noqa: S311 - which hosts are busy
            for _ in range(options.moves):
                busy = set(source.sample(range(options.hosts), max(1, options.hosts // 4)))
                demand.weights[:] = [1.0 if at in busy else 0.05 for at in range(options.hosts)]
                await asyncio.sleep(options.move_s)
                marks.append(loop.time())
            held_ms, refusals = await throttled(simulator, demand)
            asking.cancel()
            watching.cancel()
            await asyncio.gather(asking, watching, return_exceptions=True)
            arrivals = sorted(each.at_s for each in simulator.arrivals)
            sent = bisect_left(arrivals, marks[1]) - bisect_left(arrivals, marks[0])
            show(arrivals, marks, rpm=rpm)
            late_ms = 1000 * lag.longest_s
            print(
                f"arrivals seen too late              by {late_ms:.0f} ms at most (the window allows for {_DELAY_MS})"
            )
            print(
                f"requests a call of the engine       {sent / max(1.0, calls):.1f}  ({options.share} a minute a host)"
            )
            print(f"429 on one host: last arrival after {held_ms:.0f} ms, refusals {refusals}")
            print(f"answers by status                   {dict(sorted(demand.statuses.items()))}", flush=True)
    return bool(fullest(arrivals) <= rpm)


def show(arrivals: Sequence[float], marks: Sequence[float], *, rpm: int) -> None:
    """What was used: in the fullest minute, and between the marks."""
    used_of = [used(arrivals, from_s=a, to_s=b, rpm=rpm) for a, b in pairwise(marks)]
    print(f"fullest 60 s                        {fullest(arrivals)} of {rpm}")
    print(f"used at 1.5 of the quota            {used_of[0]:.3f}")
    if moved := marks[1:-1]:
        print(
            f"used while the demand moves         {used(arrivals, from_s=marks[1], to_s=marks[-1], rpm=rpm):.3f}"
        )
        print(f"  between two moves                 {' '.join(f'{each:.3f}' for each in used_of[1:])}")
        firsts = [used(arrivals, from_s=at_s, to_s=at_s + _WINDOW_S, rpm=rpm) for at_s in moved]
        print(f"  in the first minute after each    {' '.join(f'{each:.3f}' for each in firsts)}")


async def throttled(simulator: Simulator, demand: Demand) -> tuple[float, int]:
    """One host is told 429: how long after it another request came, in ms, and how many were refused."""
    loop = asyncio.get_running_loop()
    demand.weights[:] = [1.0] * len(demand.weights)
    await asyncio.sleep(_WINDOW_S / 4)
    before = simulator.counts.by_status[429]
    simulator.faults.add(Fault("status", 429, retry_after=f"{_PAUSE_S}"))
    await until(lambda: simulator.counts.by_status[429] > before, what="a refusal")
    at_s = loop.time()
    await asyncio.sleep(_PAUSE_S * 0.9)
    late = [each.at_s - at_s for each in simulator.arrivals if each.at_s > at_s]
    return 1000 * max(late, default=0.0), simulator.counts.by_status[429] - before


def main() -> int:
    """The exit code: 0 where the bound held."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.coordination", description=__doc__)
    parser.add_argument("--hosts", type=int, default=20, help="services [20]")
    parser.add_argument("--share", type=int, default=60, help="requests a minute of each [60]")
    parser.add_argument(
        "--engine", default=programs()[0], help="the server's program [the first that is here]"
    )
    parser.add_argument(
        "--beginning-s", type=float, default=45.0, help="seconds before the first figure [45]"
    )
    parser.add_argument("--steady-s", type=float, default=120.0, help="seconds of even demand [120]")
    parser.add_argument("--moves", type=int, default=5, help="how often the demand moves [5]")
    parser.add_argument("--move-s", type=float, default=120.0, help="seconds between two moves [120]")
    return 0 if asyncio.run(measure(parser.parse_args())) else 1


if __name__ == "__main__":
    raise SystemExit(main())
