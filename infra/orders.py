"""Orders for playbook runs, from the fleet: pure data in, pure data out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from infra import secrets, ssh
from infra.content import role_variables
from infra.inventory import claim_variables, host_variables, inventory
from infra.nodes import Captured, Fleet, Node
from infra.order import KNOWN_HOSTS, Order
from infra.schema import FleetSettings, SshSettings
from infra.sources import local

DEPLOY = "ansible/ai-client-deploy.yml"
DECOMMISSION = "ansible/ai-client-decommission.yml"

# Where the role put things, and where their last copies go; a decommission needs nothing else of a host's variables.
_PLACES = ("ai_config_dir", "ai_cache_dir", "ai_log_dir", "ai_fetch_dir", "ansible_python_interpreter")
# Below the project folder. Hosts of this machine are thrown away with all that they did.
_KEPT = "decommissioned"


def deploy(
    settings: FleetSettings,
    fleet: Fleet,
    captured: Captured,
    *,
    group: str,
    nodes: Iterable[Node],
    check: bool = False,
    tries_keys: bool = True,
) -> Order:
    """Bring nodes of one group into their declared state, or with `check` tell what that would change.

    With `tries_keys`, a new key is tried at the provider from each of them before it is laid down there.
    """
    reached = tuple(nodes)
    variables = _of_the_roll_out(settings, tries_keys=tries_keys) | shared_variables(settings, captured)
    return Order(
        playbook=DEPLOY,
        inventory=inventory(fleet, variables, only=[node.name for node in reached], claimed=True),
        ssh_config=ssh.config_text(
            (*fleet.jump_hosts, *reached), outgoing(settings), known_hosts=KNOWN_HOSTS
        ),
        known_hosts=ssh.known_hosts_text((*fleet.jump_hosts, *reached), captured),
        secrets=secrets.environment(settings.key_for(group), settings.key_next_for(group)),
        with_artefact=True,
        check=check,
    )


def decommission(settings: FleetSettings, fleet: Fleet, captured: Captured, *, node: Node) -> Order:
    """Clean up one host, if its marker still names this claim."""
    group = next(group for group in fleet.groups if node in group.nodes)
    kept = {} if settings.groups[group.name].source == "local" else {"ai_fetch_dir": _KEPT}
    seen = {**kept, **_scoped(settings, fleet, group.name), **node.variables}
    places = {name: seen[name] for name in _PLACES if name in seen}
    alone = host_variables(node) | places | claim_variables(fleet, node)
    return Order(
        playbook=DECOMMISSION,
        inventory={"all": {"hosts": {node.name: alone}}},
        ssh_config=ssh.config_text((*fleet.jump_hosts, node), outgoing(settings), known_hosts=KNOWN_HOSTS),
        known_hosts=ssh.known_hosts_text((*fleet.jump_hosts, node), captured),
        instance=asdict(node.instance) if node.instance else {},
    )


def _of_the_roll_out(settings: FleetSettings, *, tries_keys: bool) -> dict[str, Any]:
    """Variables that say how a change goes out, and change nothing on a host that is as declared."""
    gate = settings.gate
    return {
        "ai_gate_seconds": gate.seconds,
        "ai_gate_error_share": gate.max_error_share,
        "ai_gate_throttled_share": gate.max_throttled_share,
        "ai_gate_overhead_ms": gate.max_overhead_ms,
        "ai_try_keys": tries_keys,
    }


def shared_variables(settings: FleetSettings, captured: Captured) -> dict[str, Any]:
    """Variables of all hosts; the gateways of a local fleet also take the token that was made with it."""
    if not captured.gateway_token_sha256:
        return settings.vars
    tenants = {settings.stack: {"token_sha256": captured.gateway_token_sha256}}
    return {**settings.vars, "ai_tenants": tenants | settings.vars.get("ai_tenants", {})}


def effective_variables(settings: FleetSettings, fleet: Fleet, group: str) -> dict[str, Any]:
    """Role variables that a group's hosts get, the nearest scope last."""
    seen = _scoped(settings, fleet, group)
    return {name: value for name, value in seen.items() if name in role_variables()}


def _scoped(settings: FleetSettings, fleet: Fleet, group: str) -> dict[str, Any]:
    """Every variable that a group's hosts get."""
    by_name = {g.name: g for g in fleet.groups}
    merged: dict[str, Any] = dict(settings.vars)
    for name in (*reversed(fleet.ancestors(group)), group):
        merged |= by_name[name].variables
    return merged


def outgoing(settings: FleetSettings) -> SshSettings:
    """How ssh goes out: as declared, or with the key made for local hosts."""
    if settings.ssh.identity_file or not settings.has_local_hosts:
        return settings.ssh
    return settings.ssh.model_copy(update={"identity_file": local.identity_file(settings.stack)})
