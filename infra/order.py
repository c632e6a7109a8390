"""What a playbook run is told: pure data, sent to the run as JSON on standard input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

KNOWN_HOSTS = "{known_hosts}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to run, and where.

    Attributes:
        playbook: path of the playbook below the project folder.
        inventory: inventory in its YAML form, as data.
        ssh_config: text of the ssh configuration, with KNOWN_HOSTS where the path of that file goes.
        known_hosts: text of the pinned host keys.
        secrets: environment variables that hold secrets.
        with_artefact: whether hosts may need the artefact; it is built first where this machine has none.
        check: whether to look only, and tell the differences.
        tags: parts of the role to run; all where empty.
        instance: what the one host is at its cloud; where that is gone, the host is not contacted. Empty elsewhere.
    """

    playbook: str
    inventory: Mapping[str, Any]
    ssh_config: str
    known_hosts: str
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    with_artefact: bool = False
    check: bool = False
    tags: tuple[str, ...] = ()
    instance: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> str:
        """The order as the child reads it."""
        return json.dumps(asdict(self), sort_keys=True)

    def hosts(self) -> tuple[str, ...]:
        """Every host of the inventory."""
        return tuple(dict.fromkeys(_hosts(self.inventory)))


def _hosts(inventory: Mapping[str, Any]) -> list[str]:
    """Every host name in an inventory."""
    names: list[str] = []
    for group in inventory.values():
        names += (group or {}).get("hosts") or {}
        names += _hosts((group or {}).get("children") or {})
    return names
