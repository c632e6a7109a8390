"""The Ansible inventory of a fleet, built as data. Nothing secret is ever in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from infra.config.precedence import Precedence, renamed
from infra.hosts.model import Fleet, Node, NodeGroup

Inventory = dict[str, Any]


def inventory(
    fleet: Fleet, variables: Mapping[str, Any], *, only: Iterable[str] | None = None, claimed: bool = False
) -> Inventory:
    """The inventory as its YAML form wants it.

    Args:
        fleet: groups and nodes.
        variables: variables of all hosts.
        only: names of the hosts to hold, with the groups that have one of them: a run must not change because of a
            variable that its hosts do not see. Without it, all hosts and all groups.
        claimed: whether each host also gets the variables that say whose it is, which a run of this program needs.
    """
    names = frozenset(only) if only is not None else frozenset(node.name for node in fleet.targets)
    hosts = {
        node.name: host_variables(node) | (claim_variables(fleet, node) if claimed else {})
        for node in fleet.targets
        if node.name in names
    }
    held = {child for group in fleet.groups for child in group.children}
    seen = {g.name for g in fleet.groups if only is None or names.intersection(fleet.members(g.name))}
    children = {g.name: _group(fleet, g, hosts, seen) for g in fleet.groups if g.name in seen - held}
    everyone: Inventory = {"children": children}
    if variables:
        everyone["vars"] = renamed(variables)
    return {"all": everyone}


def precedence(fleet: Fleet, variables: Mapping[str, Any]) -> Precedence:
    """What every host of a fleet sees, by the inventory that Ansible reads.

    Args:
        fleet: groups and nodes.
        variables: variables of all hosts.
    """
    return Precedence.of_inventory(inventory(fleet, variables))


def as_yaml(content: Inventory) -> str:
    """The inventory as a YAML file, hosts and variables in the order of the configuration."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110)


def _group(
    fleet: Fleet, group: NodeGroup, hosts: Mapping[str, dict[str, Any]], seen: set[str]
) -> dict[str, Any]:
    by_name = {g.name: g for g in fleet.groups}
    result: dict[str, Any] = {}
    if group.children:
        result["children"] = {
            name: _group(fleet, by_name[name], hosts, seen) for name in group.children if name in seen
        }
    else:
        result["hosts"] = {node.name: hosts[node.name] for node in group.nodes if node.name in hosts}
    if group.variables:
        result["vars"] = renamed(group.variables)
    return result


def host_variables(node: Node) -> dict[str, Any]:
    """Variables of one host: how to reach it, then its own."""
    reach: dict[str, Any] = {"ansible_host": node.address, "ansible_user": node.user}
    if node.port != 22:
        reach["ansible_port"] = node.port
    return reach | renamed(node.variables)


def claim_variables(fleet: Fleet, node: Node) -> dict[str, Any]:
    """The variables that say whose a host is."""
    return {"ai_claim": fleet.claim(node.name), "ai_claim_owner": fleet.owner}
