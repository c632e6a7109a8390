"""Many simulated hosts on one real engine: `python -m tests.bench.coordination_scale --hosts 5000 --seconds 600`.

Each host is the protocol's own state machine with the clocks of this machine, a demand of its own, and no requests.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis

from ai_client.coordination.endpoint import Endpoint, EngineError
from ai_client.coordination.host_report import HostReport
from ai_client.coordination.lease import Lease, Mode
from ai_client.coordination.link import EngineLink
from ai_client.coordination.protocol import Terms
from ai_client.coordination.wire import Keys
from tests.client.coordination.engine import RealEngine, programs
from tests.client.coordination.fleet import moment
from tests.client.service_rig import free_port

_SHARE = 60
_CONNECTIONS = 64
_SEED = 9
_KEYS = Keys("scale")
_WORD = HostReport(
    version="1.0.0", release="r" * 64, config="c" * 64, key="0123456789ab", files="sealed"
).encode()


@dataclass
class Counts:
    """What happened; waits in seconds."""

    calls: int = 0
    failures: int = 0
    waits_s: list[float] = field(default_factory=list)


async def live(
    number: int,
    leases: list[Lease],
    links: "asyncio.Queue[EngineLink]",
    counts: Counts,
    source: random.Random,
) -> None:
    """One host, until it is cancelled."""
    lease = Lease(
        f"host-{number:05}",
        f"i{number}",
        share=_SHARE,
        floor=1,
        now=moment(),
        remembers_share=True,
        terms=Terms(),
    )
    leases.append(lease)
    demand = source.choice([0, 10, 60, 200])
    await asyncio.sleep(source.uniform(0, 15))
    while True:
        wait_ms = lease.due_in_ms(moment(), used=0, demand=demand)
        if wait_ms > 0:
            await asyncio.sleep(wait_ms / 1000)
            continue
        link = await links.get()
        request = lease.begin(moment(), used=0, demand=demand)
        began_s = time.perf_counter()
        try:
            (answer,) = await link.call(_KEYS, [request], report=_WORD)
            counts.calls += 1
            counts.waits_s.append(time.perf_counter() - began_s)
            lease.end(answer, moment(), number=request.number)
        except EngineError:
            counts.failures += 1
            await asyncio.sleep(source.uniform(1, 4))
        finally:
            links.put_nowait(link)
        lease.failed(number=request.number)


def engine_cpu_s(operator: redis.Redis) -> float:
    cpu = operator.info("cpu")
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])


def show(
    operator: redis.Redis, leases: Sequence[Lease], counts: Counts, *, cpu_s: float, seconds: float
) -> None:
    """The figures."""
    waits = sorted(counts.waits_s)
    now = moment()
    caps = sum(lease.limit(now) for lease in leases)
    modes = {mode.value: sum(lease.mode(now) is mode for lease in leases) for mode in Mode}
    print(f"calls a second      {counts.calls / seconds:.1f}, failures {counts.failures}")
    print(
        f"engine CPU          {cpu_s / seconds:.3f} of one core, {1e6 * cpu_s / max(1, counts.calls):.0f} µs a call"
    )
    print(f"engine memory       {operator.info('memory')['used_memory'] / 1e6:.1f} MB, {len(leases)} hosts")
    if waits:
        p99_s = waits[-1 - len(waits) // 100]
        print(f"answer              median {1e3 * statistics.median(waits):.1f} ms, p99 {1e3 * p99_s:.0f} ms")
    print(f"may be used         {caps} of {len(leases) * _SHARE}; hosts by mode {modes}")


async def measure(*, hosts: int, seconds: float) -> bool:
    """Whether no more may be used than there is."""
    port, source = free_port(), random.Random(_SEED)  # noqa: S311 - demands
    with tempfile.TemporaryDirectory(prefix="acb-") as folder:
        engine = RealEngine(programs()[0], Path(folder), "--port", str(port), "--bind", "127.0.0.1").start()
        operator = redis.Redis(unix_socket_path=str(engine.socket))
        links: asyncio.Queue[EngineLink] = asyncio.Queue()
        for _ in range(_CONNECTIONS):
            links.put_nowait(EngineLink(Endpoint(f"redis://127.0.0.1:{port}"), timeout_s=3.0))
        leases: list[Lease] = []
        counts = Counts()
        tasks = [asyncio.create_task(live(n, leases, links, counts, source)) for n in range(hosts)]
        before_s = engine_cpu_s(operator)
        await asyncio.sleep(seconds)
        show(operator, leases, counts, cpu_s=engine_cpu_s(operator) - before_s, seconds=seconds)
        now = moment()
        kept = sum(lease.limit(now) for lease in leases) <= hosts * _SHARE
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while not links.empty():
            await links.get_nowait().close()
        operator.close()
        engine.stop()
    return kept


def main() -> int:
    """The exit code: 0 where the bound held."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.coordination_scale", description=__doc__)
    parser.add_argument("--hosts", type=int, default=5000, help="simulated hosts [5000]")
    parser.add_argument("--seconds", type=float, default=600, help="for so long [600]")
    given = parser.parse_args()
    return 0 if asyncio.run(measure(hosts=given.hosts, seconds=given.seconds)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
