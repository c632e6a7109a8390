"""What is told of a reload that failed: why, and what serves on."""

from __future__ import annotations

from typing import Final, NamedTuple

from ai_client.errors import ConfigurationError
from ai_client.gateway.process.handover import HandoverError
from ai_client.settings import ConfigError, KeyMissingError

FAILURES: Final = (ConfigError, KeyMissingError, ConfigurationError, HandoverError, OSError)


class FailedReload(NamedTuple):
    """The event of the log, the state that the service manager shows, and the answer to who asked."""

    event: str
    state: str
    error: str


def failed_reload(exc: Exception) -> FailedReload:
    """One of `FAILURES` in words."""
    if isinstance(exc, HandoverError):
        state = "serving with the old release: the new one does not start"
        return FailedReload("handover_failed", state, str(exc))
    if isinstance(exc, OSError):
        state, error = "serving: the reload failed", f"{exc}; check the disk and the open files"
        return FailedReload("reload_failed", state, error)
    return FailedReload("reload_failed", "serving with the old configuration: the new one is wrong", str(exc))
