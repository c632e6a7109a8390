"""The service's log."""

from __future__ import annotations

import time

from ai_client.platform import json_log
from ai_client.settings import Settings


def start_logs(settings: Settings) -> None:
    """Log as `[logging]` says."""
    json_log.start(
        folder=settings.logging.log_dir,
        level=settings.logging.level,
        retention_days=settings.logging.retention_days,
        wall_clock=time.time,
    )
