"""Timing of small operations, side by side in one run."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds: the median and the 99th percentile of wall time, and CPU time per operation."""

    median_us: float
    p99_us: float
    cpu_us: float


def timed(operation: Callable[[], object], *, times: int) -> Timing:
    """Each call timed on its own."""
    walls = []
    cpu_started_s = time.process_time()
    for _ in range(times):
        started_ns = time.perf_counter_ns()
        operation()
        walls.append(time.perf_counter_ns() - started_ns)
    return _timing(walls, time.process_time() - cpu_started_s)


async def timed_async(operation: Callable[[], Awaitable[object]], *, times: int) -> Timing:
    """One after the other."""
    walls = []
    cpu_started_s = time.process_time()
    for _ in range(times):
        started_ns = time.perf_counter_ns()
        await operation()
        walls.append(time.perf_counter_ns() - started_ns)
    return _timing(walls, time.process_time() - cpu_started_s)


def _timing(walls_ns: list[int], cpu_s: float) -> Timing:
    walls_ns.sort()
    count = len(walls_ns)
    return Timing(
        median_us=walls_ns[count // 2] / 1e3,
        p99_us=walls_ns[count * 99 // 100] / 1e3,
        cpu_us=cpu_s / count * 1e6,
    )


def show(rows: list[tuple[str, Timing]], *, baseline: Timing) -> None:
    """A table, with each median as a multiple of the baseline's."""
    print(f"{'':44}{'median µs':>11}{'p99 µs':>10}{'CPU µs':>10}{'× baseline':>12}")
    for name, timing in rows:
        ratio = timing.median_us / baseline.median_us
        print(f"{name:44}{timing.median_us:11.1f}{timing.p99_us:10.1f}{timing.cpu_us:10.1f}{ratio:12.2f}")
