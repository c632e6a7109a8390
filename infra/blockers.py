"""What `up` still needs. A preview lists it and goes on; `up` refuses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from infra.nodes import Fleet
from infra.schema import FleetSettings
from infra.ssh import HostKeys, pinned


@dataclass(frozen=True, slots=True)
class Blocker:
    """One thing that is missing, and how to supply it."""

    culprit: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.culprit}: {self.reason}; {self.remedy}"


def blockers(settings: FleetSettings, fleet: Fleet, captured: HostKeys) -> tuple[Blocker, ...]:
    """Everything that stands between a preview and `up`. Local hosts get their host keys when they are made."""
    return (*_missing_keys(settings), *_unpinned_hosts(fleet, captured, made_by_up=_local_names(settings)))


def _missing_keys(settings: FleetSettings) -> Iterable[Blocker]:
    lacking = [n for n, group in settings.groups.items() if group.hosts and settings.key_for(n) is None]
    if lacking:
        yield Blocker(
            "fleet:apiKey",
            f"no upstream key for {', '.join(lacking)}",
            "set it with 'pulumi config set --secret apiKey'",
        )


def _unpinned_hosts(fleet: Fleet, captured: HostKeys, *, made_by_up: frozenset[str]) -> Iterable[Blocker]:
    unpinned = [
        node.name
        for node in (*fleet.jump_hosts, *fleet.targets)
        if node.name not in made_by_up and not pinned(node, captured)
    ]
    if unpinned:
        yield Blocker(
            "hostKeys",
            f"no pinned host key for {', '.join(unpinned)}",
            "write each host's public key, read over a channel that you trust, as hostKeys in the stack's file",
        )


def _local_names(settings: FleetSettings) -> frozenset[str]:
    jump_hosts = {name for name, host in settings.jump_hosts.items() if host.source == "local"}
    groups: Mapping[str, object] = {n: g for n, g in settings.groups.items() if g.source == "local"}
    return frozenset(jump_hosts | {name for group in groups for name in settings.groups[group].hosts})
