"""What a stack tells its users: inventory, ssh configuration, results and plan, never a secret."""

from __future__ import annotations

from typing import Any

import pulumi

from infra import orders, ssh
from infra.inventory import inventory
from infra.nodes import Captured, Fleet
from infra.order import KNOWN_HOSTS
from infra.schema import FleetSettings


def reach(settings: FleetSettings, fleet: Fleet, captured: pulumi.Output[Captured]) -> dict[str, Any]:
    """What the dynamic inventory reads: the inventory, and how ssh reaches its hosts."""
    nodes = (*fleet.jump_hosts, *fleet.targets)
    return {
        "inventory": inventory(fleet, settings.vars),
        "ssh": {
            "config": ssh.config_text(nodes, orders.outgoing(settings), known_hosts=KNOWN_HOSTS),
            "knownHosts": captured.apply(lambda known: ssh.known_hosts_text(nodes, known)),
        },
    }
