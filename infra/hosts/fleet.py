"""From settings to the fleet: nodes from their sources, in their groups."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType

from infra.config.schema import FleetSettings, GroupSettings
from infra.errors import SettingsError
from infra.hosts import ec2, local, static
from infra.hosts.model import Fleet, Node, NodeGroup

_SOURCES: dict[str, ModuleType] = {"static": static, "local": local}
_NONE: Mapping[str, tuple[ec2.Instance, ...]] = {}


def build(settings: FleetSettings, found: Mapping[str, tuple[ec2.Instance, ...]] = _NONE) -> Fleet:
    """The fleet that a stack's settings declare. Groups of groups follow the groups that they hold.

    Args:
        settings: the stack's settings.
        found: what a cloud answered about each group whose hosts it has.

    Raises:
        NodeSourceError: the hosts of a group are unknown, or two hosts can't be told apart.
        SettingsError: a host that the stack does not have is to be cordoned.
    """
    ordered = sorted(settings.groups.items(), key=lambda item: bool(item[1].children))
    built = Fleet(
        stack=settings.stack,
        groups=tuple(_group(settings, name, group, found) for name, group in ordered),
        jump_hosts=tuple(
            _certified(settings, host.source, _SOURCES[host.source].jump_node(settings, name, host))
            for name, host in settings.jump_hosts.items()
        ),
    )
    ec2.check_apart((*built.jump_hosts, *(node for group in built.groups for node in group.nodes)))
    _check_cordon(settings, built)
    return built


def cordoned(fleet: Fleet) -> tuple[str, ...]:
    """Names of the hosts that are to be left as they are."""
    return tuple(node.name for node in fleet.targets if node.is_cordoned)


def _check_cordon(settings: FleetSettings, fleet: Fleet) -> None:
    names = [node.name for node in fleet.targets]
    for name in settings.cordon:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "take it out, or correct its name"
            raise SettingsError("fleet:cordon", f"the stack has no host '{name}'", hint)


def _group(
    settings: FleetSettings,
    name: str,
    group: GroupSettings,
    found: Mapping[str, tuple[ec2.Instance, ...]],
) -> NodeGroup:
    if group.source == "ec2":
        nodes = ec2.nodes(settings, name, group, found.get(name, ()))
    else:
        make: Callable[..., Node] = _SOURCES[group.source].node
        nodes = tuple(make(settings, group, host_name, host) for host_name, host in group.hosts.items())
    return NodeGroup(
        name=name,
        nodes=tuple(_certified(settings, group.source, _cordoned(settings, group, node)) for node in nodes),
        children=group.children,
        variables=group.vars,
    )


def _cordoned(settings: FleetSettings, group: GroupSettings, node: Node) -> Node:
    """The node, away where it is cordoned: it keeps its claim and its part of the quota, and no run reaches it."""
    own = group.hosts.get(node.name)
    if node.name not in settings.cordon and not (own and own.cordoned):
        return node
    return replace(node, is_cordoned=True, away="it is left untouched, with its key and limits")


def _certified(settings: FleetSettings, source: str, node: Node) -> Node:
    """The node with those who certify its host key. The key of a local host is captured when it is made."""
    if source == "local" or node.host_keys:
        return node
    return replace(node, host_authorities=settings.ssh.certificate_authority)
