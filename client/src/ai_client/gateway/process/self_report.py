"""What the service says of itself in the registry of its fleet: looked at once a minute, said with every call."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from ai_client import __version__
from ai_client.configure.launch import Launch
from ai_client.contract.events import Event, Throttled
from ai_client.coordination.host_report import HostReport
from ai_client.gateway.watch.spending import Spent
from ai_client.ledger.prices import NANO_PER_DOLLAR
from ai_client.platform import seal
from ai_client.platform.given_file import read_given
from ai_client.platform.seal import Files
from ai_client.settings import KeyPair

EVERY_S = 60.0
_RELEASES = "releases"


class SelfReport:
    """`health` gives the service's checks, `stats` the client's numbers, `spent` what its ledger has."""

    def __init__(
        self,
        launch: Launch,
        config_path: Path | None,
        *,
        health: Callable[[], Awaitable[dict[str, Any]]],
        stats: Callable[[], Mapping[str, Any]],
        spent: Callable[[], Awaitable[Spent]],
    ) -> None:
        self._release = _release_of(launch.release)
        self._config_path = config_path
        self._health = health
        self._stats = stats
        self._ask_spent = spent
        self._spent = Spent()
        self._checks: dict[str, Any] = {"ok": True, "checks": {}}
        self._files = Files.UNKNOWN
        self._config = ""
        self._throttled = 0
        self._keys: KeyPair | None = None

    def __call__(self, event: Event) -> None:
        """A listener of the client's events."""
        self._throttled += isinstance(event, Throttled)

    def reconfigured(self, keys: KeyPair) -> None:
        """Another configuration or key is in use."""
        self._keys = keys
        self._config = _digest(self._config_path)

    async def watch(self) -> None:
        """Look once a minute, until it is cancelled."""
        while True:
            self._files = await asyncio.to_thread(seal.look)
            self._spent = await self._ask_spent()
            self._checks = await self._health()
            await asyncio.sleep(EVERY_S)

    def encoded(self, *, mode: str, rpm: int) -> str:
        """What is known now."""
        stats, keys = self._stats(), self._keys
        failing = [f"{n}: {c['detail']}" for n, c in self._checks["checks"].items() if not c["ok"]]
        return HostReport(
            version=__version__,
            release=self._release,
            config=self._config,
            key="" if keys is None else keys.current.fingerprint,
            key_next="" if keys is None or keys.following is None else keys.following.fingerprint,
            is_well=bool(self._checks["ok"]),
            trouble="; ".join(failing),
            files=self._files.value,
            mode=mode,
            rpm=rpm,
            requests=sum(stats["requests"].values()),
            errors=sum(stats["errors"].values()),
            throttled=self._throttled,
            queued=int(stats["queued"]),
            day=self._spent.day,
            today_nusd=round(self._spent.today_usd * NANO_PER_DOLLAR),
            month_nusd=round(self._spent.month_usd * NANO_PER_DOLLAR),
            tenants=self._spent.by_tenant,
        ).encode()


def _release_of(program: Path) -> str:
    """The release that a program is of, where it lies in a folder of releases."""
    parts = program.parts
    return parts[parts.index(_RELEASES) + 1] if _RELEASES in parts[:-1] else ""


def _digest(path: Path | None) -> str:
    try:
        return "" if path is None else hashlib.sha256(read_given(path)).hexdigest()
    except OSError:
        return ""
