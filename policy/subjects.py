"""What a rule looks at: a resource as a dictionary, and what can be read out of it.

A resource is `{"urn", "type", "name", "props"}`. `props` are its inputs; of the stack itself they are its outputs,
among which the inventory names each host with its variables.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from infra.config.precedence import Precedence
from infra.config.schema import AccountSettings

Resource = Mapping[str, Any]
Variables = Mapping[str, Any]

STACK = "pulumi:pulumi:Stack"
COMMAND = "command:local:Command"

# What the engine writes in the place of a text that only an update will know.
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What rules must know of the stack beside the resource.

    Attributes:
        environment: `fleet:environment`, or "" where it is not said.
        account: what the provider grants the whole account, where it is declared.
        shows_secrets: whether secret inputs come in clear text, as a policy pack gets them, or masked.
    """

    environment: str
    account: AccountSettings | None = None
    shows_secrets: bool = False


def setting(config: Mapping[str, str], *, shows_secrets: bool) -> Setting:
    """The setting that a stack's configuration makes; what is wrong in it is for the program to refuse.

    Args:
        config: full key to value, as Pulumi hands it to programs.
        shows_secrets: whether secret inputs come in clear text.
    """
    account = None
    with contextlib.suppress(ValidationError):
        account = AccountSettings.model_validate_json(config.get("fleet:account", ""))
    return Setting(
        environment=config.get("fleet:environment", ""), account=account, shows_secrets=shows_secrets
    )


def order(resource: Resource) -> Mapping[str, Any] | None:
    """The order of a playbook run that a command gets on its standard input, where it can be read."""
    text = resource["props"].get("stdin") if resource["type"] == COMMAND else None
    try:
        content = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return content if isinstance(content, dict) and "playbook" in content else None


def hosts(resource: Resource) -> dict[str, Variables]:
    """Every host that a resource tells something, with all variables that it sees there."""
    source = resource["props"] if resource["type"] == STACK else order(resource) or {}
    inventory = source.get("inventory")
    if not isinstance(inventory, Mapping):
        return {}
    seen = Precedence.of_inventory(inventory)
    return {host: seen.variables(host) for host in seen.hosts}


def ssh(resource: Resource) -> tuple[str, str] | None:
    """The ssh configuration and the pinned host keys that a resource goes by, where both are known."""
    if resource["type"] == STACK:
        source = resource["props"].get("ssh")
        texts = (source.get("config"), source.get("knownHosts")) if isinstance(source, Mapping) else ()
    else:
        found = order(resource) or {}
        texts = (found.get("ssh_config"), found.get("known_hosts"))
    config, known = texts or (None, None)
    if not isinstance(config, str) or not isinstance(known, str) or UNKNOWN in (config, known):
        return None
    return config, known
