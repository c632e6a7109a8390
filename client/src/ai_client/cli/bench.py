"""`ai-client bench`: measure this host's service, and a second provider beside it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ai_client.bench.load import Load, drive, outlook
from ai_client.bench.measure import Sample, Summary, summarize
from ai_client.bench.picture import page
from ai_client.bench.providers import DirectProvider, ServiceProvider
from ai_client.bench.targets import BenchTarget
from ai_client.cli.host import socket_of, usable_settings
from ai_client.cli.table import table
from ai_client.ledger.prices import Prices
from ai_client.settings import KeyMissingError, Settings, read_key
from ai_client.settings.places import costs_where_answered

EXIT_TARGET = 1
EXIT_UNUSABLE = 2

_ROWS = (
    "requests",
    "error_rate",
    "average_ms",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "first_byte_p50_ms",
    "throughput_rps",
    "cost_per_1000_usd",
    "cost_usd",
    "cache_hit_rate",
    "pool_peak",
    "pool_size",
)

Run = tuple[Summary, Sequence[Sample]]


def run(options: argparse.Namespace) -> int:
    """0 where all targets are met, 1 where one is not, 2 where it could not be measured."""
    try:
        settings = usable_settings(options)
        providers = _providers(options, settings)
        if options.plot is not None:
            _try_to_write(options.plot)
    except KeyMissingError as exc:
        print(exc, file=sys.stderr)
        return EXIT_UNUSABLE
    except OSError as exc:
        print(f"{options.plot} can't be written ({exc.strerror}); name another file", file=sys.stderr)
        return EXIT_UNUSABLE
    targets: list[BenchTarget] = options.target
    runs = asyncio.run(_measure(_load(options, settings), providers))
    if all(not sample.is_ok for sample in runs[0][1]):
        print(
            f"no request was answered: {_errors(runs[0][0])}; see `ai-client --health-check`", file=sys.stderr
        )
        return EXIT_UNUSABLE
    missed = [target for target in targets if not target.is_met(runs[0][0])]
    verdicts = [
        ("missed: " if target in missed else "met: ") + target.describe(runs[0][0]) for target in targets
    ]
    if options.plot:
        options.plot.write_text(page("ai-client bench", runs, verdicts))
    if options.json:
        told = {"runs": [summary.as_json() for summary, _ in runs], "met": not missed, "targets": verdicts}
        print(json.dumps(told))
    else:
        print(_text([summary for summary, _ in runs]))
        print("\n".join(verdicts), end="\n" if verdicts else "")
    return EXIT_TARGET if missed else 0


def _try_to_write(path: Path) -> None:
    """Before anything is paid for. Raises OSError."""
    is_new = not path.exists()
    path.open("ab").close()
    if is_new:
        path.unlink()


def _errors(summary: Summary) -> str:
    counted = ", ".join(f"{count} x {code}" for code, count in sorted(summary.errors.items()))
    return counted or "none was sent"


def _load(options: argparse.Namespace, settings: Settings) -> Load:
    rate_rps = None if options.peak_rps is None else options.peak_rps * options.multiple
    return Load(
        requests=options.requests,
        at_once=options.at_once,
        rate_rps=rate_rps,
        model=options.model or settings.models.default,
        max_tokens=options.max_tokens,
        is_streamed=options.stream,
        repeat_share=options.repeat,
        max_usd=options.max_usd,
        seed=time.time_ns() if options.seed is None else options.seed,
    )


def _providers(options: argparse.Namespace, settings: Settings) -> list[ServiceProvider | DirectProvider]:
    path = socket_of(options)
    prices = Prices.from_settings(costs_where_answered(settings))
    found: list[ServiceProvider | DirectProvider] = [ServiceProvider(path, name="this host", prices=prices)]
    if options.against:
        key = read_key(key_file=options.against_key_file, environment=os.environ)
        name = options.against
        found.append(DirectProvider(name, key.secret, name=name, prices=prices, at_once=options.at_once))
    return found


async def _measure(chosen: Load, providers: Sequence[ServiceProvider | DirectProvider]) -> list[Run]:
    """One after the other: side by side they would share this host's processor."""
    runs: list[Run] = []
    for provider in providers:
        async with provider:
            said = outlook(chosen, await provider.requests_per_minute())
            if said:
                print(f"{provider.name}: {said}", file=sys.stderr)
            with _counted(provider.name, chosen.requests) as seen:
                samples, seconds = await drive(chosen, provider, seen=seen)
            summary = summarize(
                provider.name,
                samples,
                seconds=seconds,
                pool_peak=provider.pool_peak,
                pool_size=provider.pool_size,
            )
        runs.append((summary, samples))
    return runs


@contextmanager
def _counted(name: str, requests: int) -> Iterator[Callable[[int], None] | None]:
    """Counts on a terminal, on a line that is wiped at the end."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        yield lambda done: print(
            f"\r{name}: {done} of {requests} requests", end="\033[K", file=sys.stderr, flush=True
        )
    finally:
        print("\r", end="\033[K", file=sys.stderr, flush=True)


def _text(summaries: Sequence[Summary]) -> str:
    rows = [[name, *(_cell(getattr(summary, name)) for summary in summaries)] for name in _ROWS]
    for code in sorted({code for summary in summaries for code in summary.errors}):
        rows.append([f"error {code}", *(str(summary.errors.get(code, 0)) for summary in summaries)])
    return table(["", *(summary.provider for summary in summaries)], rows, left=1)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if value < 1 else f"{value:,.1f}"
