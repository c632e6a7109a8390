"""Hosts and groups as pure data: what every source yields and everything else reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudInstance:
    """What a host is at its cloud, so that the cloud can be asked whether it is gone; nothing of it is secret.

    Attributes:
        id: instance id.
        region: region that it lives in.
        account: number of the account that it belongs to.
        role_arn: role that may look at it, or "" where the caller's own identity may.
    """

    id: str
    region: str
    account: str
    role_arn: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One host.

    Attributes:
        name: inventory name, unique in the stack.
        address: IP address or DNS name that ssh connects to.
        user: login; it has sudo and is not root.
        port: ssh port.
        zone: availability zone, or "" where the source has none.
        jump: names of the jump hosts on the way, outermost first.
        host_keys: pinned public host keys in OpenSSH's one-line form, without host name.
        host_authorities: public keys of those who certify its host key, where none is pinned.
        variables: Ansible variables of this host alone.
        instance: what it is at its cloud; None elsewhere.
        is_cordoned: whether it is to be left as it is; it is away then too.
        away: why it cannot be reached now although it is there, or "". Such a host keeps its claim and is not deployed.
    """

    name: str
    address: str
    user: str = "deploy"
    port: int = 22
    zone: str = ""
    jump: tuple[str, ...] = ()
    host_keys: tuple[str, ...] = ()
    host_authorities: tuple[str, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    instance: CloudInstance | None = None
    is_cordoned: bool = False
    away: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGroup:
    """An inventory group: of nodes, or of other groups.

    Attributes:
        name: inventory name of the group.
        nodes: its hosts, in the order of the configuration.
        children: names of groups inside it.
        variables: Ansible variables of the group.
    """

    name: str
    nodes: tuple[Node, ...] = ()
    children: tuple[str, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All hosts of a stack.

    Attributes:
        stack: name of the stack.
        groups: groups in the order of the configuration; a group of groups follows its children.
        jump_hosts: hosts that lead to others and run no service of ours.
        owned_as: the part of every claim that names the state; "" is the stack's name alone.
    """

    stack: str
    groups: tuple[NodeGroup, ...]
    jump_hosts: tuple[Node, ...] = ()
    owned_as: str = ""

    @property
    def targets(self) -> tuple[Node, ...]:
        """Every host that gets the service, each once."""
        return tuple({node.name: node for group in self.groups for node in group.nodes}.values())

    def ancestors(self, group: str) -> tuple[str, ...]:
        """Names of the groups that hold `group`, nearest first."""
        parents = [g.name for g in self.groups if group in g.children]
        return tuple(parents) + tuple(a for p in parents for a in self.ancestors(p))

    def members(self, group: str) -> tuple[str, ...]:
        """Names of all hosts in a group and in the groups below it."""
        found = next(g for g in self.groups if g.name == group)
        below = [name for child in found.children for name in self.members(child)]
        return (*(node.name for node in found.nodes), *below)

    def claim(self, node: str) -> str:
        """What the marker on the host says: which state owns it, under which name."""
        return f"{self.owner}/{node}"

    @property
    def owner(self) -> str:
        """The part of every claim that names the state."""
        return self.owned_as or f"fleet/{self.stack}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """What is known only once the stack has made its hosts; none of it is secret.

    Attributes:
        host_keys: public host keys by host name.
        gateway_token_sha256: digest of the token that the gateways of a local fleet take over TCP, or "".
    """

    host_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gateway_token_sha256: str = ""
