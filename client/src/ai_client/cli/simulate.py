"""`ai-client simulate`: the provider simulator in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import ssl
import sys
from pathlib import Path

from ai_client.cli.parser import EXIT_USAGE
from ai_client.platform.systemd import Notifier
from ai_client.testing import Simulator, SimulatorOptions

EXAMPLE_KEY = "hs_test_simulated"


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
        like=options.like,
    )
    if options.tls_key is not None and options.tls_cert is None:
        print("--tls-key needs --tls-cert, the certificate that the key belongs to", file=sys.stderr)
        return EXIT_USAGE
    try:
        tls = _tls(options.tls_cert, options.tls_key)
    except OSError as exc:
        remedy = "give a PEM certificate chain and its private key"
        print(f"TLS can't be served with {options.tls_cert} ({exc.strerror}); {remedy}", file=sys.stderr)
        return 1
    import uvloop  # noqa: PLC0415  only here is it needed

    try:
        return uvloop.run(_serve(chosen, tls))
    except OSError as exc:
        reason = exc.strerror or str(exc)
        remedy = "name another with --host and --port (0 is any free port)"
        print(f"can't listen on {options.host}:{options.port} ({reason}); {remedy}", file=sys.stderr)
        return 1


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """None where TLS is not asked for. Raises OSError."""
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


async def _serve(options: SimulatorOptions, tls: ssl.SSLContext | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Simulator(options, tls=tls) as simulator:
        Notifier(os.environ).ready("simulating")
        print(f"listening on {simulator.base_url} (provider simulator, Ctrl-C ends it)")
        prefix = simulator.options.key_prefix
        begins = f" that begins with {prefix}" if prefix else ""
        print(f"accepts every key{begins}, such as {EXAMPLE_KEY}", flush=True)
        await stop.wait()
    return 0
