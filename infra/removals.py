"""Guards against removing many hosts at once by mistake.

What a stack owns is what its state holds claims of, whatever its configuration says by now.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import pulumi
from pulumi.runtime import invoke

from infra.errors import RemovalError
from infra.nodes import Fleet

_CLAIM = "claim-"
_LISTED = 10
_READS = 20
_BETWEEN_READS_S = 0.1


def check(owned: Iterable[str], fleet: Fleet, *, allowed: int) -> None:
    """Refuses where more hosts would be removed than the stack allows.

    Args:
        owned: claims in the stack's state.
        fleet: hosts that the stack declares now.
        allowed: how many may be removed at once.

    Raises:
        RemovalError: too many; names them.
    """
    declared = {fleet.claim(node.name) for node in fleet.targets}
    removed = sorted(claim.removeprefix(f"{fleet.owner}/") for claim in set(owned) - declared)
    if len(removed) <= allowed:
        return
    names = ", ".join(removed[:_LISTED]) + (" …" if len(removed) > _LISTED else "")
    raise RemovalError(
        "fleet:maxRemovals",
        f"{len(removed)} hosts would be removed ({names}) and {allowed} may be",
        f"correct the stack's file, or allow it with 'pulumi config set maxRemovals {len(removed)}'",
    )


def claims(resources: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """Claims in a state, from its resources' outputs by URN."""
    return frozenset(
        held["outputs"]["environment"]["CLAIM"]
        for urn, held in resources.items()
        if urn.rpartition("::")[2].startswith(_CLAIM) and held.get("type") == "command:local:Command"
    )


def recorded() -> frozenset[str]:
    """Claims in the stack's state as the last run left it; none before the first.

    The engine itself is asked: a StackReference would be a resource, and show in every preview.
    """
    name = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    return claims(_read_when_whole(name))


def _read_when_whole(stack: str) -> Mapping[str, Mapping[str, Any]]:
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
