"""What the stack's state says of the last run: whose hosts it has, and within which limits they work.

The state is the truth about what a stack owns, whatever its configuration says by now.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What the last run that ended well put on one host.

    Attributes:
        inventory: the run's inventory, which holds its variables.
        content: digest of role and release.
        key: fingerprint of the upstream key.
        key_next: fingerprint of the key that a rotation goes to, or "".
        result: what the host answered.
    """

    inventory: Mapping[str, Any]
    content: str
    key: str
    key_next: str
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recorded:
    """The last run.

    Attributes:
        claims: claims that the stack holds.
        limits: limits that each group's hosts were given.
        applied: what was last applied, by host.
        nonces: of each command that runs again where its work has drifted, what it last ran under; by name.
    """

    claims: frozenset[str] = frozenset()
    limits: Mapping[str, Limits] = field(default_factory=dict)
    applied: Mapping[str, Applied] = field(default_factory=dict)
    nonces: Mapping[str, str] = field(default_factory=dict)


def read() -> Recorded:
    """The last run by the stack's state; nothing before the first.

    The engine itself is asked: a StackReference would be a resource, and show in every preview.
    """
    name = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    return from_resources(_read_when_whole(name))


def from_resources(resources: Resources) -> Recorded:
    """The last run by a state's resources: outputs by URN."""
    commands = {
        urn.rsplit("::", 1)[-1]: held["outputs"]
        for urn, held in resources.items()
        if held.get("type") == _COMMAND and isinstance(held.get("outputs"), Mapping)
    }
    facts = {name: outputs.get("environment") or {} for name, outputs in commands.items()}
    waves = {name: entry for name, entry in facts.items() if "GROUP" in entry}
    limits: dict[str, Limits] = {}
    for wave in waves.values():
        before = limits.get(wave["GROUP"])
        hosts = len(wave["HOSTS"].split(",")) + (before.hosts if before else 0)
        limits[wave["GROUP"]] = Limits(int(wave["RPM"]), int(wave["TPM"]), hosts)
    return Recorded(
        claims=frozenset(entry["CLAIM"] for entry in facts.values() if "CLAIM" in entry),
        limits=limits,
        applied={host: last for name in waves for host, last in _applied(commands[name])},
        nonces={name: entry["NONCE"] for name, entry in facts.items() if "NONCE" in entry},
    )


def _applied(outputs: Mapping[str, Any]) -> Iterator[tuple[str, Applied]]:
    """What a wave's run put on each of its hosts. Of its order, which holds the key, only the inventory is read."""
    facts = outputs["environment"]
    try:
        inventory = json.loads(outputs["stdin"])["inventory"]
        results = json.loads(outputs["stdout"])["hosts"]
    except (KeyError, TypeError, ValueError):
        return  # of a run that another program recorded
    for host in facts["HOSTS"].split(","):
        yield (
            host,
            Applied(
                inventory=inventory,
                content=facts.get("CONTENT", ""),
                key=facts.get("KEY", ""),
                key_next=facts.get("KEY_NEXT", ""),
                result=results.get(host) or {},
            ),
        )


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
