"""From settings to the fleet: nodes from their sources, in their groups."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from infra.nodes import Fleet, Node, NodeGroup
from infra.schema import FleetSettings, GroupSettings
from infra.sources import local, static

_SOURCES: dict[str, ModuleType] = {"static": static, "local": local}


def build(settings: FleetSettings) -> Fleet:
    """The fleet that a stack's settings declare. Groups of groups follow the groups that they hold."""
    ordered = sorted(settings.groups.items(), key=lambda item: bool(item[1].children))
    return Fleet(
        stack=settings.stack,
        groups=tuple(_group(settings, name, group) for name, group in ordered),
        jump_hosts=tuple(
            _SOURCES[host.source].jump_node(settings, name, host)
            for name, host in settings.jump_hosts.items()
        ),
    )


def _group(settings: FleetSettings, name: str, group: GroupSettings) -> NodeGroup:
    make: Callable[..., Node] = _SOURCES[group.source].node
    return NodeGroup(
        name=name,
        nodes=tuple(make(settings, group, host_name, host) for host_name, host in group.hosts.items()),
        children=group.children,
        variables=group.vars,
    )
