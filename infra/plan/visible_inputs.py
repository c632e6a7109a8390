"""What a reader may see change in a deploy: digests, fingerprints and limits that stand for its inputs.

The request of a run is secret as a whole, since it holds the key. Previews, states and plans show these instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from infra import secret_texts
from infra.config import upstream_key
from infra.config.precedence import Precedence
from infra.config.schema import FleetSettings
from infra.hosts.inventory import precedence
from infra.hosts.model import Fleet, Node
from infra.project_files import deploy_digest
from infra.state import quota
from infra.state.last_run import Applied

_DIGEST_LENGTH = 16
# Where a host is: a change of these is shown by its claim.
_REACH = frozenset({"ansible_host", "ansible_user", "ansible_port"})


class VisibleInputs:
    """The visible inputs of every run of a fleet.

    Attributes:
        seen: variables of every host.
        limits: what every host may send.
    """

    def __init__(self, settings: FleetSettings, fleet: Fleet) -> None:
        self._settings = settings
        self.seen = precedence(fleet, settings.vars)
        self.limits = quota.limits_of(self.seen, fleet)

    def of_wave(self, group: str, wave: Sequence[Node]) -> dict[str, str]:
        """Those of the run that brings some nodes of a group into their declared state."""
        key, key_next = self._settings.key_for(group), self._settings.key_next_for(group)
        secrets = {name: text for node in wave for name, text in self.secrets_of(node).items()}
        # Only where there are some: a run must not change because the program knows a new input.
        hidden = {"SECRETS": secret_texts.fingerprint(frozenset(secrets.items()))} if secrets else {}
        return hidden | {
            "GROUP": group,
            "HOSTS": ",".join(node.name for node in wave),
            "RPM": _numbers([self.limits[node.name].rpm for node in wave]),
            "TPM": _numbers([self.limits[node.name].tpm for node in wave]),
            "CONTENT": deploy_digest()[:_DIGEST_LENGTH],
            "VARIABLES": digest([self._variables(node.name) for node in wave]),
            "KEY": upstream_key.fingerprint(key) if key else "",
            "KEY_NEXT": upstream_key.fingerprint(key_next) if key_next else "",
        }

    def secrets_of(self, node: Node) -> dict[str, str]:
        """Secret texts among the variables that a host sees, by name."""
        secrets = self._settings.secrets
        if not secrets:
            return {}
        names = secret_texts.names_in(json.dumps(self.seen.variables(node.name)))
        return {name: text for name, text in secrets.items() if name in names}

    def _variables(self, host: str) -> Mapping[str, Any]:
        return {name: value for name, value in self.seen.variables(host).items() if name not in _REACH}


def visible_engines(last: Mapping[str, Applied], now: VisibleInputs) -> tuple[dict[str, str], dict[str, str]]:
    """The engine that lends each host quota: by what was last applied there, and as declared; "" for none."""
    # The hosts of a wave have one inventory.
    seen = {id(each.inventory): each.inventory for each in last.values()}
    known = {key: Precedence.of_inventory(content) for key, content in seen.items()}
    before = {host: _engine(known[id(applied.inventory)], host) for host, applied in last.items()}
    return before, {host: _engine(now.seen, host) for host in now.limits}


def _engine(seen: Precedence, host: str) -> str:
    return str(seen.variables(host).get("ai_coordination_endpoint") or "")


def _numbers(numbers: Sequence[int]) -> str:
    """One number where all are equal, else one each."""
    return ",".join(map(str, numbers if len(set(numbers)) > 1 else numbers[:1]))


def digest(content: Any) -> str:
    """The start of the SHA-256 of a structure, in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:_DIGEST_LENGTH]
