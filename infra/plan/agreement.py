"""What a plan is known by: `planDigest`, which `fleet:requirePlan` holds an `up` to.

Everything that a run does to hosts goes into it: what is declared, how every host stands to that, where hosts are, in
which order they are reached and by which gate, and which leave. Nothing that a tool words goes into it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from infra.config.schema import FleetSettings
from infra.hosts.model import Fleet, Node
from infra.hosts.waves import Waves
from infra.plan.finding import Difference, Finding, HostState
from infra.plan.visible_inputs import VisibleInputs, digest
from infra.playbook import requests

_RELEASES = ("/opt/ai-client/releases", "/opt/ai-client/current")


def plan_digest(
    settings: FleetSettings,
    fleet: Fleet,
    *,
    visible: VisibleInputs,
    waves: Mapping[str, Waves],
    leaving: Iterable[str],
    findings: Mapping[str, Finding],
) -> str:
    """The digest of a plan, 16 hexadecimal digits.

    Args:
        settings: the stack's settings.
        fleet: its hosts.
        visible: what a reader sees of each run.
        waves: the order of every group's roll-out.
        leaving: claims that the run ends.
        findings: how every host stands to what is declared.
    """
    runs = {name: [visible.of_wave(name, wave) for wave in order] for name, order in waves.items()}
    return digest(
        {
            "runs": runs,
            "gate": settings.gate.model_dump(mode="json"),
            "ssh": requests.outgoing(settings).model_dump(mode="json"),
            "hosts": [_place(node) for node in (*fleet.jump_hosts, *fleet.targets)],
            "leaving": sorted(leaving),
            "findings": {host: _standing(finding) for host, finding in findings.items()},
        }
    )


def _place(node: Node) -> dict[str, Any]:
    """Which machine a host is, and how it is reached. `away` is a sentence."""
    return {
        "name": node.name,
        "address": node.address,
        "user": node.user,
        "port": node.port,
        "jump": node.jump,
        "host_keys": node.host_keys,
        "host_authorities": node.host_authorities,
        "instance": asdict(node.instance) if node.instance else None,
        "is_away": bool(node.away),
    }


def _standing(finding: Finding) -> dict[str, Any]:
    """State and changes. A release is told by the runs' content: whether it is built yet makes no other plan."""
    entries = [entry for entry in finding.differences if entry.is_drift or not _is_of_the_release(entry)]
    is_told = bool(finding.differences) and not entries
    state = HostState.SAME if is_told and finding.state is HostState.DIFFERS else finding.state
    return {"state": state.value, "changes": [_change(entry) for entry in entries]}


def _is_of_the_release(entry: Difference) -> bool:
    return entry.path.startswith(_RELEASES)


def _change(entry: Difference) -> list[Any]:
    """Path and changed lines, without a diff's own words around them."""
    body = [line for line in entry.diff.splitlines() if not line.startswith(("---", "+++", "@@"))]
    return [entry.path, entry.is_drift, body]
