"""What `up` still needs. A preview lists it and goes on; `up` refuses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.config.schema import FleetSettings
from infra.hosts import local
from infra.hosts.inventory import precedence
from infra.hosts.model import Captured, Fleet
from infra.playbook.ssh import is_pinned
from infra.project_files import PROJECT


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
    return (
        *_missing_keys(settings, fleet),
        *_unpinned_hosts(settings, fleet),
        *_missing_tasks(settings, PROJECT),
    )


def _missing_keys(settings: FleetSettings, fleet: Fleet) -> Iterable[Blocker]:
    seen = precedence(fleet, settings.vars)
    lacking = [
        group.name
        for group in fleet.groups
        if settings.key_for(group.name) is None
        and any(_takes_a_key(seen.variables(node.name)) for node in group.nodes)
    ]
    if lacking:
        yield Blocker(
            "fleet:apiKey",
            f"no upstream key for {', '.join(lacking)}",
            "set it with 'pulumi config set --secret apiKey', or say with keySource where it is kept",
        )


def _takes_a_key(variables: Mapping[str, Any]) -> bool:
    """Whether a host's key is laid down by a run, as the role sees it."""
    return bool(variables.get("ai_needs_key", True)) and variables.get("ai_key_from", "file") == "file"


def _missing_tasks(settings: FleetSettings, project: Path) -> Iterable[Blocker]:
    for name, group in settings.groups.items():
        for when, file in (("before", group.before), ("after", group.after)):
            if file and not (project / file).is_file():
                yield Blocker(
                    f"groups.{name}.{when}",
                    f"{file} is not in the project folder",
                    "write it, or correct the path",
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
            " (on EC2: in the instance's tag), or name the CA that signs them in ssh.certificateAuthority",
        )
