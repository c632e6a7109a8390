"""What `ai-client batch serve` does beside the spool: lines of batches that hosts share."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import time
from collections.abc import Sequence

from ai_client.batch.caller import LineSender
from ai_client.batch.shared.sealing import HostKey, host_keys
from ai_client.batch.shared.worker import SharedWorker, SharedWorkerPlan
from ai_client.cli.host import socket_of
from ai_client.configure.coordination import host_of
from ai_client.configure.shared_batches import batch_link, renew, sealing_keys
from ai_client.configure.sources import COORDINATION_HOST
from ai_client.platform import json_log
from ai_client.settings import ConfigError, Settings

_log = logging.getLogger(__name__)


def host_name(settings: Settings) -> str:
    """This host's name in the books, also where its file is that of many hosts."""
    return settings.coordination.host or os.environ.get(COORDINATION_HOST, "").strip() or host_of(settings)


class SharedWork:
    """Lines of shared batches on this host."""

    def __init__(self, options: argparse.Namespace, settings: Settings) -> None:
        self._options = options
        self._settings = settings
        self._link = batch_link(settings)
        self._sender = LineSender(
            socket_of(options),
            batch_name="",
            max_attempts=settings.batch.max_attempts,
            at_once=options.at_once,
        )
        plan = SharedWorkerPlan(
            # Of this process alone: another one of this host holds chunks of its own.
            consumer=f"{host_name(settings)}/{secrets.token_hex(4)}",
            keys=self._keys,
            at_once=options.at_once,
            max_line_bytes=int(settings.gateway.max_body_mb * 1_000_000),
        )
        self._worker = SharedWorker(self._link, self._sender, plan, clock=_since_boot_s)

    @classmethod
    def of(cls, options: argparse.Namespace, settings: Settings) -> SharedWork | None:
        """None where the engine's password can't be read: the log says so."""
        try:
            return cls(options, settings)
        except ConfigError as exc:
            _log.error("shared_batches_off", extra=json_log.fields({"reason": str(exc)}))
            return None

    def stop(self) -> None:
        """Begin no more lines."""
        self._worker.stop()

    async def run(self) -> None:
        """Until `stop`."""
        async with self._sender:
            await self._worker.run()
        await self._link.close()

    def _keys(self) -> Sequence[HostKey]:
        """The provider's keys as they are now; the engine's password is read anew with them. Raises KeyMissingError."""
        try:
            renew(self._link, self._settings)
        except ConfigError as exc:
            _log.warning("engine_password_unreadable", extra=json_log.fields({"reason": str(exc)}))
        return host_keys(
            sealing_keys(self._settings, key_file=self._options.key_file, environment=os.environ)
        )


def _since_boot_s() -> float:
    """A clock that goes on while the host is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
