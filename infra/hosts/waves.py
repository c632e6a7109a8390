"""The order of a roll-out within a group, as data."""

from __future__ import annotations

from collections.abc import Sequence

from infra.hosts.model import Node

# How many go together: a number, or a part of the group such as "25%".
Step = int | str
Waves = tuple[tuple[Node, ...], ...]

# Waves that grew host by host are laid out anew once there are this many times as many as are needed.
_MOST_WAVES = 2


def waves(
    nodes: Sequence[Node],
    *,
    canary: int,
    serial: Sequence[Step],
    recorded: Sequence[Sequence[str]] = (),
) -> Waves:
    """Nodes in the order in which a change reaches them: the canary, then step by step, one zone after another.

    No wave has hosts of two zones, so that a bad change leaves the other zones as they are. Waves of the last run stay
    as they are, and new hosts follow in waves of their own: a host more runs nothing on the others, and gets its limits
    after theirs were lowered.

    Args:
        nodes: the group's nodes.
        canary: how many of the first zone go first and alone; 0 for none.
        serial: how many go together after that, wave by wave; the last one goes on. The rest of a zone where empty.
        recorded: names of the hosts of each wave of the last run.
    """
    sizes = [_hosts(step, of=len(nodes)) for step in serial] or [len(nodes)]
    anew = _laid_out(nodes, canary=canary, sizes=sizes)
    by_name = {node.name: node for node in nodes}
    known = [tuple(by_name[name] for name in names if name in by_name) for names in recorded]
    kept = [wave for wave in known if wave]
    if not kept or not _is_legal(kept, canary=canary, sizes=sizes):
        return anew
    old = {node.name for wave in kept for node in wave}
    new = [node for node in nodes if node.name not in old]
    left = sizes[len(kept) - bool(canary) :] or sizes[-1:]
    grown = (*kept, *_laid_out(new, canary=0, sizes=left))
    return grown if len(grown) <= max(_MOST_WAVES * len(anew), len(kept)) else anew


def _laid_out(nodes: Sequence[Node], *, canary: int, sizes: Sequence[int]) -> Waves:
    left_sizes = list(sizes)
    found: list[tuple[Node, ...]] = []
    for zone in dict.fromkeys(node.zone for node in nodes):
        left = tuple(node for node in nodes if node.zone == zone)
        if canary and not found:
            found.append(left[:canary])
            left = left[canary:]
        while left:
            size = left_sizes.pop(0) if len(left_sizes) > 1 else left_sizes[0]
            found.append(left[:size])
            left = left[size:]
    return tuple(found)


def _is_legal(kept: Sequence[tuple[Node, ...]], *, canary: int, sizes: Sequence[int]) -> bool:
    """Whether no wave is of two zones or larger than its step allows."""
    steps = [canary, *sizes] if canary else [*sizes]
    allowed = [*steps, *[steps[-1]] * len(kept)]
    return all(
        len({node.zone for node in wave}) == 1 and len(wave) <= size
        for wave, size in zip(kept, allowed, strict=False)
    )


def _hosts(step: Step, *, of: int) -> int:
    """How many hosts a step is, one at least."""
    return step if isinstance(step, int) else max(1, of * int(step.removesuffix("%")) // 100)
