"""What a playbook run is told: pure data, sent to the run as JSON on standard input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from infra.errors import PlaybookError

KNOWN_HOSTS = "{known_hosts}"
# Raise it where an older program would misread a request; a test of each version stays (tests/infra/playbook/requests).
VERSION = 2
_BEFORE_VERSIONS = 1
# What requests of older versions may lack.
_MISSING: Mapping[str, Any] = {"ssh_config": "", "known_hosts": ""}
_HOW_TO_REPAIR = "run 'pulumi up' with this program, so that the state has a new one"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
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
        may_clean_up: whether a host may be cleaned up though no run says that it leaves, as on `destroy`.
        before: file of tasks, below the project folder, that run on the hosts first; none where empty.
        after: file of tasks that run on each host that is deployed and well; none where empty.
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
    may_clean_up: bool = False
    before: str = ""
    after: str = ""

    def as_json(self) -> str:
        """The request as the child reads it, and as states keep it for as long as a host is claimed."""
        return json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> RunRequest:
        """The request that any version of this program wrote.

        A state keeps the request to clean a host up from the day on which it was claimed.

        Raises:
            PlaybookError: it is none, or a later program wrote it.
        """
        try:
            raw = json.loads(text)
            version = int(raw.pop("version", _BEFORE_VERSIONS))
            if version <= VERSION:
                known = {entry.name for entry in fields(cls)}
                found = {name: value for name, value in raw.items() if name in known}
                return cls(**{**_MISSING, **found, "tags": tuple(found.get("tags") or ())})
        except (ValueError, TypeError, AttributeError) as error:
            raise PlaybookError("the request of a run", "can't be read", _HOW_TO_REPAIR) from error
        raise PlaybookError(
            "the request of a run",
            f"has version {version}, but this program knows only {VERSION} and earlier ones",
            "check out the release that wrote it, or a later one",
        )

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
