"""From settings to the fleet: nodes from their sources, in their groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType

from infra.nodes import Fleet, Node, NodeGroup
from infra.schema import FleetSettings, GroupSettings
from infra.sources import ec2, local, static

_SOURCES: dict[str, ModuleType] = {"static": static, "local": local}
_NONE: Mapping[str, tuple[ec2.Instance, ...]] = {}


def build(settings: FleetSettings, found: Mapping[str, tuple[ec2.Instance, ...]] = _NONE) -> Fleet:
    """The fleet that a stack's settings declare. Groups of groups follow the groups that they hold.

    Args:
        settings: the stack's settings.
        found: what a cloud answered about each group whose hosts it has.

    Raises:
        NodeSourceError: the hosts of a group are unknown, or two hosts can't be told apart.
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
    return built


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
        nodes=tuple(_certified(settings, group.source, node) for node in nodes),
        children=group.children,
        variables=group.vars,
    )


def _certified(settings: FleetSettings, source: str, node: Node) -> Node:
    """The node with those who certify its host key. The key of a local host is captured when it is made."""
    if source == "local" or node.host_keys:
        return node
    return replace(node, host_authorities=settings.ssh.certificate_authority)
