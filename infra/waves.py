"""The order of a roll-out within a group, as data."""

from __future__ import annotations

from collections.abc import Sequence

from infra.nodes import Node

# How many go together: a number, or a part of the group such as "25%".
Step = int | str


def waves(nodes: Sequence[Node], *, canary: int, serial: Sequence[Step]) -> tuple[tuple[Node, ...], ...]:
    """Nodes in the order in which a change reaches them: the canary, then step by step, one zone after another.

    No wave has hosts of two zones, so that a bad change leaves the other zones as they are.

    Args:
        nodes: the group's nodes.
        canary: how many of the first zone go first and alone; 0 for none.
        serial: how many go together after that, wave by wave; the last one goes on. The rest of a zone where empty.
    """
    sizes = [_hosts(step, of=len(nodes)) for step in serial] or [len(nodes)]
    found: list[tuple[Node, ...]] = []
    for zone in dict.fromkeys(node.zone for node in nodes):
        left = tuple(node for node in nodes if node.zone == zone)
        if canary and not found:
            found.append(left[:canary])
            left = left[canary:]
        while left:
            size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
            found.append(left[:size])
            left = left[size:]
    return tuple(found)


def _hosts(step: Step, *, of: int) -> int:
    """How many hosts a step is, one at least."""
    return step if isinstance(step, int) else max(1, of * int(step.removesuffix("%")) // 100)
