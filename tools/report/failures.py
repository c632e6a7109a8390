"""Failures of a roll-out as a reader is told: `host · cause · what was done · where to look`, a line for each cause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LOG = "'journalctl -u ai-client' on the host"
_STOPPED = "docs/how-to/incidents.md, 'A roll-out stopped'"
_PING = "ping it: docs/how-to/day-two.md"


def lines(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each cause, with every host that has it, from each host's result; none of one that is well."""
    hosts: dict[tuple[str, str, str], list[str]] = {}
    for host, result in results.items():
        if result.get("failed") or result.get("unreachable"):
            cause = " ".join(str(result.get("message") or "no reason was given").split())
            hosts.setdefault((cause, *_done(result)), []).append(host)
    return [" · ".join((", ".join(names), *told)) for told, names in hosts.items()]


def _done(result: Mapping[str, Any]) -> tuple[str, str]:
    """What was done about it, and where to look."""
    if result.get("unreachable"):
        return "not changed", _PING
    if result.get("rolled_back"):
        release = result.get("release")
        return f"rolled back to {release}" if release else "rolled back", _LOG
    if result.get("own_task"):
        return "deployed, and kept", _STOPPED
    return ("not rolled back", _LOG) if result.get("changed") else ("not changed", _STOPPED)
