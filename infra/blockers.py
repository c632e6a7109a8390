"""What `up` still needs. A preview lists it and goes on; `up` refuses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from infra.nodes import Captured, Fleet
from infra.schema import FleetSettings
from infra.sources import local
from infra.ssh import is_pinned


@dataclass(frozen=True, slots=True)
class Blocker:
    """One thing that is missing, and how to supply it."""

    culprit: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.culprit}: {self.reason}; {self.remedy}"


def blockers(settings: FleetSettings, fleet: Fleet) -> tuple[Blocker, ...]:
    """Everything that stands between a preview and `up`. Local hosts get their host keys when they are made."""
    return (*_missing_keys(settings, fleet), *_unpinned_hosts(settings, fleet))


def _missing_keys(settings: FleetSettings, fleet: Fleet) -> Iterable[Blocker]:
    lacking = [g.name for g in fleet.groups if g.nodes and settings.key_for(g.name) is None]
    if lacking:
        yield Blocker(
            "fleet:apiKey",
            f"no upstream key for {', '.join(lacking)}",
            "set it with 'pulumi config set --secret apiKey'",
        )


def _unpinned_hosts(settings: FleetSettings, fleet: Fleet) -> Iterable[Blocker]:
    made_by_up = {host.name for host in local.hosts(settings)}
    nodes = (*fleet.jump_hosts, *(node for node in fleet.targets if not node.is_cordoned))
    unpinned = [
        node.name for node in nodes if not is_pinned(node, Captured()) and node.name not in made_by_up
    ]
    if unpinned:
        yield Blocker(
            "hostKeys",
            f"no pinned host key for {', '.join(unpinned)}",
            "write each host's public key, read over a channel that you trust, as hostKeys in the stack's file"
            " (of an instance into its tag), or name who certifies them in ssh.certificateAuthority",
        )
