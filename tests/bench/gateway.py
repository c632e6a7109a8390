"""The gateway beside bare ASGI with aiohttp, nginx and the litellm proxy: `python -m tests.bench.gateway`.

Each contender runs in one process of its own before the same upstream, with kept connections on both sides; callers are
in another process. They take turns, several rounds of some seconds. Numbers are those of the best round: on a machine
with other work the best says what a thing costs. Ratios are the median of the rounds', each to the yardstick's turn in
the same round. CPU is that of the contender's process. "all on": limits, cache (missed and written), ledger with
budgets, audit trail, metrics, retries, breaker.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from tests.bench.gateway_contenders import (
    Contender,
    NotAvailableError,
    cpu_s,
    rss_mb,
    start_bare,
    start_litellm,
    start_nginx,
    start_ours,
    start_upstream,
)

WARMING_S = 0.5


def measure(contender: Contender, *, concurrency: int, seconds: float, is_streamed: bool) -> dict[str, float]:
    """One turn."""
    began_s = cpu_s(contender.pid)
    words = [contender.address, str(concurrency), str(seconds), contender.token]
    command = [sys.executable, "-m", "tests.bench.gateway_load", *words, *(["stream"] if is_streamed else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    row: dict[str, float] = json.loads(done.stdout)
    return row | {"cpu_us": (cpu_s(contender.pid) - began_s) / row["count"] * 1e6}


def best(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The most requests a second, and the least of everything else."""
    return {
        name: max(row[name] for row in rounds)
        if name in ("per_s", "failed")
        else min(row[name] for row in rounds)
        for name in rounds[0]
    }


def ratio(name: str, rows: list[dict[str, float]], yardstick: list[dict[str, float]]) -> float:
    """The median of the rounds', each to the yardstick in the same round."""
    return median(row[name] / other[name] for row, other in zip(rows, yardstick, strict=True))


def added_ms(rows: list[dict[str, float]], yardstick: list[dict[str, float]]) -> float:
    """What half of the requests wait longer than at the yardstick, at most."""
    return median(row["p50_ms"] - other["p50_ms"] for row, other in zip(rows, yardstick, strict=True))


def compare(
    contenders: list[Contender], *, concurrency: int, seconds: float, rounds: int, is_streamed: bool
) -> None:
    """One table; the first contender is the yardstick."""
    kind = "streams of 20 chunks" if is_streamed else "whole answers"
    print(f"\n{kind}, {concurrency} at once, {rounds} rounds of {seconds:g} s")
    print(
        f"{'':27}{'a second':>10}{'ratio':>7}{'CPU µs':>9}{'ratio':>7}{'p50 ms':>10}{'added':>9}"
        f"{'p99 ms':>9}{'first byte':>12}{'failed':>8}"
    )
    found: dict[str, list[dict[str, float]]] = {each.name: [] for each in contenders}
    for each in contenders:
        measure(each, concurrency=concurrency, seconds=WARMING_S, is_streamed=is_streamed)
    for _ in range(rounds):
        for each in contenders:
            row = measure(each, concurrency=concurrency, seconds=seconds, is_streamed=is_streamed)
            found[each.name].append(row)
    yardstick = found[contenders[0].name]
    for name, rows in found.items():
        row = best(rows)
        print(
            f"{name:27}{row['per_s']:10.0f}{ratio('per_s', rows, yardstick):7.2f}"
            f"{row['cpu_us']:9.0f}{ratio('cpu_us', rows, yardstick):7.2f}"
            f"{row['p50_ms']:10.3f}{added_ms(rows, yardstick):9.3f}{row['p99_ms']:9.2f}"
            f"{row['first_byte_p50_ms']:12.3f}{row['failed']:8.0f}",
            flush=True,
        )


def soak(contender: Contender, *, requests: int, limit_s: float) -> None:
    """Memory after many requests, looked at ten times; ended after `limit_s`, with what was reached."""
    print(f"\nmemory of {contender.name} in MB, over {requests:,} requests")
    print(f"{0:>12,}{rss_mb(contender.pid):10.1f}", flush=True)
    sent, looked, ends_s = 0, 0, time.monotonic() + limit_s
    while sent < requests:
        if time.monotonic() > ends_s:
            print(f"{sent:>12,}{rss_mb(contender.pid):10.1f}  ended after {limit_s:g} s")
            return
        row = measure(contender, concurrency=50, seconds=5.0, is_streamed=False)
        sent += int(row["count"])
        if sent * 10 // requests > looked:
            looked = sent * 10 // requests
            print(f"{sent:>12,}{rss_mb(contender.pid):10.1f}", flush=True)


def started(name: str, start: Callable[[], Contender]) -> list[Contender]:
    """The contender, or none and why."""
    try:
        return [start()]
    except NotAvailableError as exc:
        print(f"{name}: not available: {exc}", flush=True)
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--concurrency", type=int, nargs="*", default=[1, 50])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", type=int, default=0, metavar="REQUESTS", help="1000000 for the memory row")
    parser.add_argument("--soak-seconds", type=float, default=1200.0, help="when the soak ends at the latest")
    parser.add_argument(
        "--peers-python", help="the interpreter of `tools/venv bench`: adds the litellm proxy"
    )
    options = parser.parse_args()
    # However it is ended, its processes are ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url, upstream = start_upstream(stack)
        ours = start_ours(stack, folder, url)
        contenders = [start_bare(stack, url, python=sys.executable), *ours]
        contenders += started("nginx", lambda: start_nginx(stack, folder, url))
        if options.peers_python:
            python = options.peers_python
            contenders += started("litellm", lambda: start_litellm(stack, folder, url, python=python))
        contenders.append(upstream)
        for is_streamed in (False, True):
            for concurrency in options.concurrency:
                compare(
                    contenders,
                    concurrency=concurrency,
                    seconds=options.seconds,
                    rounds=options.rounds,
                    is_streamed=is_streamed,
                )
        if options.soak:
            soak(ours[0], requests=options.soak, limit_s=options.soak_seconds)


if __name__ == "__main__":
    main()
