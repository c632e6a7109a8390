"""The order of a roll-out within a group, as data."""

from __future__ import annotations

from collections.abc import Sequence

from infra.nodes import Node


def waves(nodes: Sequence[Node], *, canary: int, serial: int | None) -> tuple[tuple[Node, ...], ...]:
    """Nodes in the order in which a change reaches them: first the canary, then `serial` at a time.

    Args:
        nodes: the group's nodes.
        canary: how many go first and alone; 0 for none. A group no larger than its canary is one wave.
        serial: how many go together after that; the whole rest where None.
    """
    first, rest = nodes[:canary], nodes[canary:]
    size = serial or len(rest) or 1
    later = [rest[start : start + size] for start in range(0, len(rest), size)]
    return tuple(tuple(wave) for wave in (first, *later) if wave)
