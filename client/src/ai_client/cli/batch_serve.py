"""`ai-client batch serve`: workers on a spool folder and on batches that hosts share, until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from ai_client.batch.spool import Spool
from ai_client.batch.worker import Worker, WorkerPlan
from ai_client.cli.host import settings_of, socket_of
from ai_client.platform import json_log
from ai_client.platform.systemd import Notifier
from ai_client.settings import ConfigError, Settings

if TYPE_CHECKING:
    from ai_client.cli.shared_work import SharedWork

EXIT_CONFIG = 78


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    try:
        settings = settings_of(options)
    except ConfigError as exc:
        print(exc, file=sys.stderr)
        return EXIT_CONFIG
    folder = options.spool or settings.batch.spool_dir
    try:
        spool = Spool(folder)
        return asyncio.run(_serve(options, settings, spool))
    except OSError as exc:
        print(
            f"the spool {folder} can't be used ({exc.strerror}); create it, writable for this user",
            file=sys.stderr,
        )
        return 1


def _shared(options: argparse.Namespace, settings: Settings) -> SharedWork | None:
    """Lines of batches that hosts share, where they share something."""
    if options.once or settings.coordination.endpoint is None:
        return None
    from ai_client.cli.shared_work import SharedWork  # noqa: PLC0415  other batch hosts need no engine's library

    return SharedWork.of(options, settings)


async def _serve(options: argparse.Namespace, settings: Settings, spool: Spool) -> int:
    json_log.start(
        folder=settings.logging.log_dir,
        level=settings.logging.level,
        retention_days=settings.logging.retention_days,
        wall_clock=time.time,
    )
    plan = WorkerPlan(
        socket=socket_of(options),
        at_once=options.at_once,
        max_attempts=settings.batch.max_attempts,
        max_line_bytes=int(settings.gateway.max_body_mb * 1_000_000),
    )
    workers = [Worker(spool, plan) for _ in range(options.workers)]
    loop = asyncio.get_running_loop()
    shared = _shared(options, settings)

    def stop() -> None:
        for worker in workers:
            worker.stop()
        if shared is not None:
            shared.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    if not options.once:
        Notifier(os.environ).ready("working through the spool")
    works = [worker.run(once=options.once) for worker in workers]
    if shared is not None:
        works.append(shared.run())
    await asyncio.gather(*works)
    return 0
