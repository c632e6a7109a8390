"""The service's answer to `/health`."""

from __future__ import annotations

import os
import time
from typing import Any

from ai_client import __version__, health
from ai_client.gateway.assembly import transport_options
from ai_client.health import Check, UpstreamProbe
from ai_client.settings import ApiKey, Settings

# Many askers cost the upstream one request; a fault is looked at again sooner.
KEPT_S = 10.0
FAULT_KEPT_S = 2.0


class Checkup:
    """Looks at everything, and keeps what it saw for some seconds."""

    def __init__(self) -> None:
        self._kept: tuple[float, dict[str, Any]] | None = None
        self.certificate_expires_at_s: float | None = None

    def forget(self) -> None:
        """Look anew at the next question."""
        self._kept = None

    async def report(self, settings: Settings, key: ApiKey, probe: UpstreamProbe) -> dict[str, Any]:
        """All checks, as `ai_client.health.as_json` gives them."""
        now_s = time.monotonic()
        if self._kept is not None:
            at_s, kept = self._kept
            if now_s - at_s < (KEPT_S if kept["ok"] else FAULT_KEPT_S):
                return kept
        report = await health.examine(settings, key, options=transport_options(settings), probe=probe)
        self._note(report["tls"])
        report["service"] = Check(True, f"version {__version__}, pid {os.getpid()}")
        answer = health.as_json(report)
        self._kept = (time.monotonic(), answer)
        return answer

    async def look_at_certificate(self, settings: Settings) -> None:
        """For the alert on its end."""
        self._note(await health.check_tls(settings, transport_options(settings)))

    def _note(self, tls: Check) -> None:
        self.certificate_expires_at_s = tls.expires_at_s or self.certificate_expires_at_s
