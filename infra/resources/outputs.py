"""What a stack tells its users: inventory, ssh configuration, results and plan, never a secret."""

from __future__ import annotations

from typing import Any

import pulumi

from infra.config.schema import FleetSettings
from infra.hosts.inventory import inventory
from infra.hosts.model import Captured, Fleet
from infra.playbook import requests, ssh
from infra.playbook.request import KNOWN_HOSTS


def reach(settings: FleetSettings, fleet: Fleet, captured: pulumi.Output[Captured]) -> dict[str, Any]:
    """What the dynamic inventory reads: the inventory, and how ssh reaches its hosts."""
    nodes = (*fleet.jump_hosts, *fleet.targets)
    return {
        "inventory": inventory(fleet, settings.vars),
        "ssh": {
            "config": ssh.config_text(nodes, requests.outgoing(settings), known_hosts=KNOWN_HOSTS),
            "knownHosts": captured.apply(lambda known: ssh.known_hosts_text(nodes, known)),
        },
    }
