"""What the stack's state says of the last run: whose hosts it has, and within which limits they work.

The state is the truth about what a stack owns, whatever its configuration says by now.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi.runtime import invoke

_COMMAND = "command:local:Command"
_READS = 20
_BETWEEN_READS_S = 0.1

Resources = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a group may send. Requests and tokens a minute of each host, 0 for no limit, and the number of hosts."""

    rpm: int
    tpm: int
    hosts: int

    @property
    def total(self) -> tuple[int, int]:
        """Requests and tokens a minute of all its hosts."""
        return self.rpm * self.hosts, self.tpm * self.hosts


@dataclass(frozen=True, slots=True)
class Recorded:
    """The last run.

    Attributes:
        claims: claims that the stack holds.
        limits: limits that each group's hosts were given.
    """

    claims: frozenset[str] = frozenset()
    limits: Mapping[str, Limits] = field(default_factory=dict)


def read() -> Recorded:
    """The last run by the stack's state; nothing before the first.

    The engine itself is asked: a StackReference would be a resource, and show in every preview.
    """
    name = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    return from_resources(_read_when_whole(name))


def from_resources(resources: Resources) -> Recorded:
    """The last run by a state's resources: outputs by URN."""
    facts = [
        held["outputs"].get("environment") or {}
        for held in resources.values()
        if held.get("type") == _COMMAND and isinstance(held.get("outputs"), Mapping)
    ]
    limits: dict[str, Limits] = {}
    for wave in (entry for entry in facts if "GROUP" in entry):
        before = limits.get(wave["GROUP"])
        hosts = len(wave["HOSTS"].split(",")) + (before.hosts if before else 0)
        limits[wave["GROUP"]] = Limits(int(wave["RPM"]), int(wave["TPM"]), hosts)
    return Recorded(frozenset(entry["CLAIM"] for entry in facts if "CLAIM" in entry), limits)


def _read_when_whole(stack: str) -> Resources:
    """The state's resources. A file backend does not write in one piece: a reader may find half, and asks again."""
    for attempt in range(_READS):
        try:
            answer = invoke("pulumi:pulumi:readStackResourceOutputs", {"stackName": stack})
        except Exception as error:  # the engine's refusals have no type of their own
            if "failed to load checkpoint" not in str(error) or attempt == _READS - 1:
                raise
            time.sleep(_BETWEEN_READS_S)
        else:
            break
    return (answer.value or {}).get("outputs") or {}
