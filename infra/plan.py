"""What `up` would change on each host, read from the host itself.

A probe is a playbook run in check mode: the host compares its bytes with the declared state and answers with what
differs. It changes nothing. What it found decides which runs `up` repeats although no input changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from infra import applied, facts, orders, releases, rendering
from infra.ansible_run import HostResults, execute
from infra.applied import Inputs
from infra.errors import PlaybookError
from infra.findings import Finding, HostState, difference
from infra.inventory import inventory
from infra.masking import mask_forms
from infra.nodes import Captured, Fleet, Node
from infra.order import Order
from infra.recorded import Applied
from infra.schema import FleetSettings
from infra.ssh import is_pinned


def look(
    settings: FleetSettings,
    fleet: Fleet,
    captured: Captured,
    *,
    running: frozenset[str],
    last: Mapping[str, Applied],
) -> dict[str, Finding]:
    """What each host differs in, from what is declared and from what was last applied.

    A host without key, pin or machine is not contacted.

    Args:
        settings: the stack's settings.
        fleet: its hosts.
        captured: what is known of hosts that the stack made.
        running: names of local hosts that run.
        last: what was last applied, by host.

    Raises:
        SettingsError: hosts are pinned to a release that this machine does not have.
    """
    releases.check(settings)
    findings = _look(settings, fleet, captured, running)
    return _compare(settings, fleet, captured, findings=findings, last=last)


def _look(
    settings: FleetSettings, fleet: Fleet, captured: Captured, running: frozenset[str]
) -> dict[str, Finding]:
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
            n.name: _away(n) if n.away else Finding(state[n.name] or HostState.BLOCKED)
            for n in group.nodes
            if n not in reached
        }
        if reached:
            todo.append(orders.deploy(settings, fleet, captured, group=group.name, nodes=reached, check=True))
    return findings | probe(todo)


def _away(node: Node) -> Finding:
    return Finding(HostState.CORDONED if node.is_cordoned else HostState.AWAY, node.away)


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


def _compare(
    settings: FleetSettings,
    fleet: Fleet,
    captured: Captured,
    *,
    findings: Mapping[str, Finding],
    last: Mapping[str, Applied],
) -> dict[str, Finding]:
    """The findings with their drift marked, and with a plan for who gave no answer."""
    shared = inventory(fleet, orders.shared_variables(settings, captured), claimed=True)
    judged = dict(findings)
    for group in fleet.groups:
        for node in group.nodes:
            finding = findings[node.name]
            if finding.state not in applied.JUDGED:
                continue
            said = facts.of_wave(settings, fleet, group, [node])
            now = Inputs(
                variables=rendering.host_variables(shared, node.name),
                content=said["CONTENT"],
                key=said["KEY"],
                key_next=said["KEY_NEXT"],
            )
            judged[node.name] = applied.judge(finding, node.name, last=last.get(node.name), now=now)
    return judged


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
    message = mask_forms(" ".join(str(result.get("message", "")).split()))
    if result.get("unreachable"):
        return Finding(HostState.UNREACHABLE, message)
    if result.get("failed"):
        return Finding(HostState.FAILED, message)
    # What the host knows to be secret it has masked itself; the rest is masked by its look.
    differences = tuple(
        difference(entry["path"], entry["before"], entry["after"], side="on the host")
        for entry in result.get("diffs") or ()
    )
    state = HostState.DIFFERS if result.get("changed") else HostState.SAME
    return Finding(state, differences=differences, seen={name: result.get(name) for name in _SEEN})


_SEEN = ("release", "config_digest", "key_fingerprint", "key_next_fingerprint", "journal")
