"""`ai-client simulate`: the provider simulator in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import ssl
import sys

from ai_client.sdnotify import Notifier
from ai_client.testing import Simulator, SimulatorOptions


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT: the exit code."""
    chosen = SimulatorOptions(
        host=options.host,
        port=options.port,
        limit_rpm=options.rpm,
        limit_tpm=options.tpm,
        latency_ms=options.latency_ms,
        latency_p99_ms=options.latency_p99_ms,
        token_ms=options.token_ms,
    )
    tls = None
    try:
        if options.tls_cert is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(options.tls_cert, options.tls_key)
        import uvloop  # noqa: PLC0415  only here is it needed

        return uvloop.run(_serve(chosen, tls))
    except OSError as exc:
        print(f"the simulator can't listen on {options.host}:{options.port}: {exc}", file=sys.stderr)
        return 1


async def _serve(options: SimulatorOptions, tls: ssl.SSLContext | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Simulator(options, tls=tls) as simulator:
        Notifier(os.environ).ready("simulating")
        print(f"simulating on {simulator.base_url}", flush=True)
        await stop.wait()
    return 0
