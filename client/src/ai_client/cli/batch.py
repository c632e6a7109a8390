"""`ai-client batch run`."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import signal
import sys
import time
from pathlib import Path

from ai_client.batch.caller import LineSender
from ai_client.batch.cap import worst_cost
from ai_client.batch.output import OutputError
from ai_client.batch.progress import Display, progress
from ai_client.batch.runner import Batch, BatchEnd, Plan
from ai_client.batch.source import InputError
from ai_client.cli.host import socket_of, usable_settings
from ai_client.settings import Settings

# 0: every line is answered; 1: some lines failed; the rest say why it ended early.
EXIT_FAILED_LINES = 1
EXIT_UNUSABLE = 2
EXIT_BY_ENDING = {
    BatchEnd.BUDGET: 3,
    BatchEnd.ABSENT: 4,
    BatchEnd.UNWRITABLE: 5,
    BatchEnd.QUOTA: 6,
    BatchEnd.STOPPED: 130,
}


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    if options.action == "serve":
        from ai_client.cli import batch_serve  # noqa: PLC0415  a command of its own

        return batch_serve.run(options)
    if options.action != "run":
        from ai_client.cli import shared_batch  # noqa: PLC0415  a command of its own

        return shared_batch.run(options)
    settings = usable_settings(options)
    try:
        return asyncio.run(_run(options, settings))
    except (InputError, OutputError) as exc:
        print(exc, file=sys.stderr)
        return EXIT_UNUSABLE


def plan(options: argparse.Namespace, settings: Settings) -> Plan:
    """From options to a plan."""
    output: Path = options.output
    return Plan(
        source=options.source,
        output=output,
        errors=options.errors or output.with_name(output.name + ".errors"),
        at_once=options.at_once,
        max_line_bytes=int(settings.gateway.max_body_mb * 1_000_000),
        max_usd=options.max_usd,
        worst_usd=worst_cost(settings),
        retry_failed=options.retry_failed,
    )


async def _run(options: argparse.Namespace, settings: Settings) -> int:
    chosen = plan(options, settings)
    # Two runs of one input to one output are one batch: its lines keep their idempotency keys.
    name = hashlib.sha256(f"{chosen.source.resolve()}\0{chosen.output.resolve()}".encode()).hexdigest()[:16]
    caller = LineSender(
        socket_of(options),
        batch_name=name,
        max_attempts=settings.batch.max_attempts,
        at_once=chosen.at_once,
    )
    loop = asyncio.get_running_loop()
    async with caller:
        batch = Batch(chosen, caller)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, batch.stop)
        display = None if options.json else Display(clock=time.monotonic)
        watching = asyncio.create_task(_watch(batch, display))
        started_s = time.monotonic()
        try:
            ending = await batch.run()
        finally:
            watching.cancel()
            if display is not None:
                display.end()
    return _report(batch, ending, chosen, as_json=options.json, took_s=time.monotonic() - started_s)


async def _watch(batch: Batch, display: Display | None) -> None:
    if display is None:
        return
    started_s, began = time.monotonic(), None
    while True:
        await asyncio.sleep(min(display.every_s, 0.5))
        if batch.source is None:
            continue
        began = batch.source.position if began is None else began
        display.show(
            progress(
                batch.tally,
                position=batch.source.position,
                size=batch.source.size,
                began=began,
                elapsed_s=time.monotonic() - started_s,
            )
        )


def _report(batch: Batch, ending: BatchEnd, chosen: Plan, *, as_json: bool, took_s: float) -> int:
    tally = batch.tally
    unwell = tally.failed + tally.rejected
    code = EXIT_BY_ENDING.get(ending, EXIT_FAILED_LINES if unwell else 0)
    if as_json:
        told = {
            "ending": ending,
            "answered": tally.answered,
            "failed": tally.failed,
            "rejected": tally.rejected,
            "sent": tally.sent,
            "cost_usd": round(tally.cost_usd, 9),
            "seconds": round(took_s, 3),
            "reason": batch.trouble or None,
        }
        print(json.dumps(told))
        return code
    print(
        f"{tally.answered} answered, {unwell} failed, ${tally.cost_usd:.6f}, {took_s:.1f} s: {chosen.output}"
    )
    if unwell:
        print(f"failures are in {chosen.errors}; --retry-failed sends them again", file=sys.stderr)
    if ending is not BatchEnd.DONE:
        print(
            f"not finished ({batch.trouble or ending}); run the same command again to continue",
            file=sys.stderr,
        )
    return code
