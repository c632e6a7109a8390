"""Nodes that the stack boots itself on this machine.

Addresses, key paths and names are pure functions of the settings, so that a preview can look at a host
that is not there yet. Only host keys are captured, when a host is made.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from infra.config.schema import FleetSettings, GroupSettings, HostSettings, JumpHostSettings
from infra.hosts import static
from infra.hosts.model import Captured, Node

STATE_DIR = Path("/var/lib/ai-client-fleet/local")


@dataclass(frozen=True, slots=True)
class LocalHost:
    """What a local host is made from; `link` is its address on the control side (jump host only)."""

    name: str
    address: str
    suite: str
    login: str
    link: str | None = None


def node(settings: FleetSettings, group: GroupSettings, name: str, host: HostSettings) -> Node:
    """A local host, reached through the fleet's jump host unless it says otherwise."""
    declared = static.node(settings, group, name, host)
    if declared.jump:
        return declared
    return replace(
        declared, jump=tuple(name for name, jump in settings.jump_hosts.items() if jump.source == "local")
    )


def jump_node(settings: FleetSettings, name: str, host: JumpHostSettings) -> Node:
    """The jump host as the control side sees it: at its end of the link."""
    address = settings.local.link_ends[1].split("/")[0]
    return replace(static.jump_node(settings, name, host), address=address)


def identity_file(stack: str) -> str:
    """The private key that logs in to a local fleet, made with its network."""
    return str(STATE_DIR / stack / "ssh" / "id_ed25519")


def hosts(settings: FleetSettings) -> tuple[LocalHost, ...]:
    """Every local host of a stack, the jump host first."""
    prefix = settings.local.bridge_interface.network.prefixlen

    def made(name: str, host: HostSettings | JumpHostSettings, login: str, link: str | None) -> LocalHost:
        return LocalHost(name, f"{host.address}/{prefix}", host.suite or settings.local.suite, login, link)

    jump_hosts = [
        made(name, host, host.user or settings.user, settings.local.link_ends[1])
        for name, host in settings.jump_hosts.items()
        if host.source == "local"
    ]
    targets = [
        made(name, host, host.user or group.user or settings.user, None)
        for group in settings.groups.values()
        if group.source == "local"
        for name, host in group.hosts.items()
    ]
    return (*jump_hosts, *targets)


def captured(stack: str) -> Captured:
    """What the making of the local hosts left on record here; nothing, before they are made."""
    folder = STATE_DIR / stack
    try:
        known = json.loads((folder / "known_hosts.json").read_text(encoding="utf-8"))
        token = (folder / "gateway-token").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return Captured()
    return Captured(
        host_keys={name: tuple(entry["keys"]) for name, entry in known.items()},
        gateway_token_sha256=hashlib.sha256(token.encode()).hexdigest(),
    )
