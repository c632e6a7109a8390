"""What `up` would change on each host, read from the host itself.

A probe is a playbook run in check mode: the host compares its bytes with the declared state and answers with what
differs. It changes nothing. What it found decides which runs `up` repeats although no input changed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from infra import facts, orders
from infra.ansible_run import HostResults, execute
from infra.errors import PlaybookError
from infra.masking import mask, mask_forms
from infra.nodes import Captured, Fleet
from infra.order import Order
from infra.schema import FleetSettings
from infra.ssh import is_pinned


class HostState(StrEnum):
    """How a host stands to its declared state."""

    SAME = "same"
    DIFFERS = "differs"
    ABSENT = "absent"
    BLOCKED = "blocked"
    UNSEEN = "unseen"
    AWAY = "away"
    UNREACHABLE = "unreachable"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe found on one host.

    Attributes:
        state: how the host stands to its declared state.
        message: why it could not be looked at, where that is so.
        differences: one entry for each path or unit that `up` would change: `path` and `diff`, secrets masked.
    """

    state: HostState
    message: str = ""
    differences: tuple[Mapping[str, str], ...] = ()

    @property
    def needs_run(self) -> bool:
        """Whether `up` has something to mend although no input changed."""
        return self.state is HostState.DIFFERS

    def as_output(self) -> dict[str, Any]:
        """The finding as a stack output."""
        changes = [dict(difference) for difference in self.differences]
        return {"state": self.state.value} | ({"changes": changes} if changes else {}) | self._said()

    def _said(self) -> dict[str, str]:
        return {"message": self.message} if self.message else {}

    def as_text(self, host: str) -> str:
        """The finding as a preview shows it."""
        head = f"{host}: {self.state.value}" + (f": {self.message}" if self.message else "")
        return "\n".join([head, *(difference["diff"].rstrip("\n") for difference in self.differences)])


def look(
    settings: FleetSettings, fleet: Fleet, captured: Captured, *, running: frozenset[str]
) -> dict[str, Finding]:
    """What each host differs in. A host without key, pin or machine is not contacted.

    Args:
        settings: the stack's settings.
        fleet: its hosts.
        captured: what is known of hosts that the stack made.
        running: names of local hosts that run.
    """
    findings: dict[str, Finding] = {}
    todo = []
    for group in fleet.groups:
        state = {node.name: _unseen(settings, group.name, node.name, running) for node in group.nodes}
        reached = [
            n
            for n in group.nodes
            if state[n.name] is None and not n.away and _all_pinned(fleet, n.name, captured)
        ]
        findings |= {
            n.name: Finding(HostState.AWAY, n.away) if n.away else Finding(state[n.name] or HostState.BLOCKED)
            for n in group.nodes
            if n not in reached
        }
        if reached:
            todo.append(orders.deploy(settings, fleet, captured, group=group.name, nodes=reached, check=True))
    return findings | probe(todo)


def _unseen(settings: FleetSettings, group: str, name: str, running: frozenset[str]) -> HostState | None:
    if settings.groups[group].source == "local" and name not in running:
        return HostState.ABSENT
    if not settings.probe:
        return HostState.UNSEEN
    return HostState.BLOCKED if settings.key_for(group) is None else None


def _all_pinned(fleet: Fleet, name: str, captured: Captured) -> bool:
    """Whether the host and every jump host on the way to it have a pinned key."""
    by_name = {node.name: node for node in (*fleet.jump_hosts, *fleet.targets)}
    return all(is_pinned(by_name[hop], captured) for hop in (*by_name[name].jump, name))


def digest(settings: FleetSettings, fleet: Fleet, findings: Mapping[str, Finding]) -> str:
    """What a plan is known by: what is declared, and how every host stands to it. A change in either changes it."""
    declared = [facts.of_wave(settings, fleet, group, group.nodes) for group in fleet.groups if group.nodes]
    return facts.digest([declared, {host: finding.as_output() for host, finding in findings.items()}])


def probe(orders: Iterable[Order]) -> dict[str, Finding]:
    """Looks at every host of the orders, group by group side by side."""
    todo = list(orders)
    if not todo:
        return {}
    with ThreadPoolExecutor(max_workers=len(todo)) as pool:
        return {host: finding for found in pool.map(_probe, todo) for host, finding in found.items()}


def _probe(order: Order) -> dict[str, Finding]:
    try:
        results, _ = execute(order)
    except PlaybookError as error:
        return {host: Finding(HostState.FAILED, str(error)) for host in order.hosts()}
    return {host: _finding(host, results) for host in order.hosts()}


def _finding(host: str, results: HostResults) -> Finding:
    result = results.get(host)
    if result is None:
        return Finding(HostState.FAILED, "gave no result")
    message = mask_forms(str(result.get("message", "")))
    if result.get("unreachable"):
        return Finding(HostState.UNREACHABLE, message)
    if result.get("failed"):
        return Finding(HostState.FAILED, message)
    differences = tuple(_difference(entry) for entry in result.get("diffs") or ())
    return Finding(HostState.DIFFERS if result.get("changed") else HostState.SAME, differences=differences)


def _difference(entry: Mapping[str, str]) -> Mapping[str, str]:
    """What is on the host against what is declared, as a unified diff.

    What the host knows to be secret it has masked itself; the rest is masked by its look.
    """
    path = entry["path"]
    lines = difflib.unified_diff(
        entry["before"].splitlines(),
        entry["after"].splitlines(),
        f"{path} on the host",
        f"{path} declared",
        lineterm="",
    )
    return {"path": path, "diff": mask("\n".join(lines))}
