"""Nodes whose addresses are written in the stack's file."""

from __future__ import annotations

from infra.config.schema import FleetSettings, GroupSettings, HostSettings, JumpHostSettings
from infra.hosts.model import Node


def node(settings: FleetSettings, group: GroupSettings, name: str, host: HostSettings) -> Node:
    """A declared host; what it does not say itself comes from its group, then from the stack."""
    return Node(
        name=name,
        address=host.address,
        user=host.user or group.user or settings.user,
        port=host.port or group.port or 22,
        zone=host.zone,
        jump=group.jump if host.jump is None else host.jump,
        host_keys=host.host_keys,
        variables=host.vars,
    )


def jump_node(settings: FleetSettings, name: str, host: JumpHostSettings) -> Node:
    """A declared jump host."""
    return Node(
        name=name,
        address=host.address,
        user=host.user or settings.user,
        port=host.port,
        jump=host.jump,
        host_keys=host.host_keys,
    )
