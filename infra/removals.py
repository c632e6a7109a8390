"""Guards against removing many hosts at once by mistake.

What a stack owns is what its state holds claims of, whatever its configuration says by now.
"""

from __future__ import annotations

from collections.abc import Iterable

from infra.errors import RemovalError
from infra.nodes import Fleet

_LISTED = 10


def check(owned: Iterable[str], fleet: Fleet, *, allowed: int) -> None:
    """Refuses where more hosts would be removed than the stack allows.

    Args:
        owned: claims in the stack's state.
        fleet: hosts that the stack declares now.
        allowed: how many may be removed at once.

    Raises:
        RemovalError: too many; names them.
    """
    removed = leaving(owned, fleet)
    if len(removed) <= allowed:
        return
    names = ", ".join(removed[:_LISTED]) + (" …" if len(removed) > _LISTED else "")
    raise RemovalError(
        "fleet:maxRemovals",
        f"{len(removed)} hosts would be removed ({names}) and {allowed} may be",
        f"correct the stack's file, or allow it with 'pulumi config set maxRemovals {len(removed)}'",
    )


def leaving(owned: Iterable[str], fleet: Fleet) -> list[str]:
    """Names of the hosts that the stack holds and no longer declares."""
    declared = {fleet.claim(node.name) for node in fleet.targets}
    return sorted(claim.removeprefix(f"{fleet.owner}/") for claim in set(owned) - declared)
