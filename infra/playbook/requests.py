"""Orders for playbook runs, from the fleet: pure data in, pure data out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from infra import secret_texts
from infra.config import upstream_key
from infra.config.precedence import Precedence
from infra.config.schema import FleetSettings, SshSettings
from infra.hosts import local
from infra.hosts.inventory import claim_variables, inventory, precedence
from infra.hosts.model import Captured, Fleet, Node
from infra.playbook import ssh
from infra.playbook.request import KNOWN_HOSTS, RunRequest

DEPLOY = "ansible/ai-client-deploy.yml"
DECOMMISSION = "ansible/ai-client-decommission.yml"

# Where the role put things, and where their last copies go.
_PLACES = ("ai_config_dir", "ai_cache_dir", "ai_log_dir", "ai_fetch_dir")
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
) -> RunRequest:
    """Bring nodes of one group into their declared state, or with `check` tell what that would change.

    With `tries_keys`, a new key is tried at the provider from each of them before it is laid down there.
    """
    reached, layout = tuple(nodes), settings.groups[group]
    variables = _of_the_roll_out(settings, tries_keys=tries_keys) | shared_variables(settings, captured)
    hosts = inventory(fleet, variables, only=[node.name for node in reached], claimed=True)
    return RunRequest(
        playbook=DEPLOY,
        inventory=hosts,
        ssh_config=ssh.config_text(
            (*fleet.jump_hosts, *reached), outgoing(settings), known_hosts=KNOWN_HOSTS
        ),
        known_hosts=ssh.known_hosts_text((*fleet.jump_hosts, *reached), captured),
        secrets=upstream_key.environment(settings.key_for(group), settings.key_next_for(group))
        | _hidden_in(settings, hosts),
        with_artefact=True,
        check=check,
        before=layout.before or "",
        after=layout.after or "",
    )


def decommission(
    settings: FleetSettings,
    fleet: Fleet,
    captured: Captured,
    *,
    node: Node,
    seen: Precedence | None = None,
) -> RunRequest:
    """Clean up one host, if its marker still names this claim.

    Args:
        settings: the stack's settings.
        fleet: its hosts.
        captured: what is known of hosts that the stack made.
        node: the host.
        seen: what every host sees, where it is known already.
    """
    group = next(group for group in fleet.groups if node in group.nodes)
    is_local = settings.groups[group.name].source == "local"
    kept = {} if is_local else {"ai_fetch_dir": _KEPT}
    known = seen or precedence(fleet, settings.vars)
    own = kept | known.variables(node.name)
    alone = {name: value for name, value in own.items() if _is_needed_to_clean_up(name)}
    alone |= claim_variables(fleet, node)
    return RunRequest(
        playbook=DECOMMISSION,
        inventory={"all": {"hosts": {node.name: alone}}},
        ssh_config=ssh.config_text((*fleet.jump_hosts, node), outgoing(settings), known_hosts=KNOWN_HOSTS),
        known_hosts=ssh.known_hosts_text((*fleet.jump_hosts, node), captured),
        secrets=_hidden_in(settings, alone),
        instance=asdict(node.instance) if node.instance else {},
        # Local hosts are thrown away as a whole, by a resource of their own.
        may_clean_up=is_local or settings.allow_destroy,
    )


def _hidden_in(settings: FleetSettings, content: Mapping[str, Any]) -> dict[str, str]:
    """The secret texts that expressions in an inventory stand for, by name."""
    names = secret_texts.names_in(json.dumps(content))
    return {name: text for name, text in settings.secrets.items() if name in names}


def _is_needed_to_clean_up(variable: str) -> bool:
    """Places, and how Ansible gets to the host and becomes root there."""
    return variable in _PLACES or variable.startswith("ansible_")


def _of_the_roll_out(settings: FleetSettings, *, tries_keys: bool) -> dict[str, Any]:
    """Variables that say how a change goes out, and change nothing on a host that is as declared."""
    gate = settings.gate
    taken = {"ai_take_over": settings.take_over} if settings.take_over else {}
    return taken | {
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


def outgoing(settings: FleetSettings) -> SshSettings:
    """How ssh goes out: as declared, or with the key made for local hosts."""
    if settings.ssh.identity_file or not settings.has_local_hosts:
        return settings.ssh
    return settings.ssh.model_copy(update={"identity_file": local.identity_file(settings.stack)})
