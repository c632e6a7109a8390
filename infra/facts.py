"""What a reader may see change in a deploy: digests, fingerprints and limits that stand for its inputs.

The order of a run is secret as a whole, since it holds the key. Facts are what previews, states and plans show of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from infra import orders, quota, secrets
from infra.content import deploy_digest
from infra.nodes import Fleet, Node, NodeGroup
from infra.recorded import Limits
from infra.schema import FleetSettings

_DIGEST_LENGTH = 16


def of_wave(settings: FleetSettings, fleet: Fleet, group: NodeGroup, wave: Sequence[Node]) -> dict[str, str]:
    """Facts of the run that brings some nodes of a group into their declared state."""
    variables = orders.effective_variables(settings, fleet, group.name)
    may_send = quota.limits_of(group, variables)
    key, key_next = settings.key_for(group.name), settings.key_next_for(group.name)
    return {
        "GROUP": group.name,
        "HOSTS": ",".join(node.name for node in wave),
        "RPM": str(may_send.rpm),
        "TPM": str(may_send.tpm),
        "CONTENT": deploy_digest()[:_DIGEST_LENGTH],
        "VARIABLES": digest([variables, [dict(node.variables) for node in wave]]),
        "KEY": secrets.fingerprint(key) if key else "",
        "KEY_NEXT": secrets.fingerprint(key_next) if key_next else "",
    }


def limits(settings: FleetSettings, fleet: Fleet, group: NodeGroup) -> Limits:
    """What a group's hosts may send."""
    return quota.limits_of(group, orders.effective_variables(settings, fleet, group.name))


def digest(content: Any) -> str:
    """The start of the SHA-256 of a structure, in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:_DIGEST_LENGTH]
