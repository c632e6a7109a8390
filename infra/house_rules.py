"""What no stack may do, whatever its users write: pure judgements of what hosts are told.

A rule here must not be skipped, so the settings enforce it. The policy pack (`policy/`) judges the resources by the
same functions, and has rules beyond these that a team may soften.
"""

from __future__ import annotations

import ipaddress
import re
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from infra.content import role_defaults
from infra.errors import SettingsError
from infra.nodes import Fleet, NodeGroup
from infra.schema import AccountSettings, FleetSettings

DEVELOPMENT = "dev"

_SECRET = (
    (re.compile(r"hs_(live|test)_[A-Za-z0-9_-]{4,}"), "an upstream key"),
    (re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----"), "a private key"),
    (re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@{]+@", re.IGNORECASE), "an address with a password"),
)
_PASSWORD = re.compile(r"ansible_(\w+_)?(pass|password|passphrase)")
# Each of these can make ssh take a host key that is not pinned, or go past ssh altogether.
_UNPINNING = re.compile(r"ansible_((ssh|scp|sftp)_\w*args|(\w+_)?host_key_\w+|\w*ssh_executable|connection)")


@dataclass(frozen=True, slots=True)
class Breach:
    """A rule that is broken: by which variable, why, and what to do."""

    rule: str
    variable: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.variable}: {self.reason}; {self.remedy}"


def check(settings: FleetSettings, fleet: Fleet) -> None:
    """Refuses a stack that breaks a rule of the house.

    Args:
        settings: the stack's settings.
        fleet: its hosts, with the limits that were worked out for them.

    Raises:
        SettingsError: the first breach, with the configuration key that it is in.
    """
    for path, text in texts(settings.model_dump(mode="json", by_alias=True)):
        if kind := secret_in(text):
            raise SettingsError(
                f"fleet:{path}",
                f"holds {kind} in clear text",
                "take it out, treat it as disclosed, and give secrets with 'pulumi config set --secret'",
            )
    for group in fleet.groups:
        _check_group(settings, fleet, group)
    if settings.account:
        for breach in over_quota(dict(_hosts(settings, fleet)), settings.account):
            raise SettingsError(f"fleet:account.{breach.variable}", breach.reason, breach.remedy)


def _check_group(settings: FleetSettings, fleet: Fleet, group: NodeGroup) -> None:
    is_local = settings.groups[group.name].source == "local"
    # Hosts without variables of their own are all as their group is.
    for name in dict.fromkeys(node.name if node.variables else "" for node in group.nodes):
        scopes = dict(_scopes(settings, fleet, group, name))
        for breach in breaches(ChainMap(*map(dict, scopes.values())), settings.environment):
            # The gateways of local hosts get the token that is made with them.
            if not (is_local and breach.rule == "gateways-need-tokens"):
                place = next((key for key, own in scopes.items() if breach.variable in own), "fleet:vars")
                raise SettingsError(f"{place}.{breach.variable}", breach.reason, breach.remedy)


def _scopes(
    settings: FleetSettings, fleet: Fleet, group: NodeGroup, host: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Variables that a host sees, nearest first, each with the configuration key of its place."""
    by_name = {g.name: g for g in fleet.groups}
    own = {node.name: node.variables for node in group.nodes}
    if host:
        yield f"fleet:groups.{group.name}.hosts.{host}.vars", own[host]
    for name in (group.name, *fleet.ancestors(group.name)):
        yield f"fleet:groups.{name}.vars", by_name[name].variables
    yield "fleet:vars", settings.vars


def _hosts(settings: FleetSettings, fleet: Fleet) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for group in fleet.groups:
        shared = ChainMap(*(dict(scope) for _, scope in _scopes(settings, fleet, group, "")))
        for node in group.nodes:
            yield node.name, shared.new_child(dict(node.variables))


def breaches(variables: Mapping[str, Any], environment: str) -> Iterator[Breach]:
    """The rules that the variables of one host break.

    Args:
        variables: all variables that the host sees.
        environment: the stack's environment; `dev` may leave TLS unverified.
    """
    if environment != DEVELOPMENT:
        yield from _unverified(variables)
    yield from _open_gateway(variables)
    for name in variables:
        if _PASSWORD.fullmatch(name) and not str(variables[name]).startswith("{{"):
            yield Breach(
                "secrets-stay-secret",
                name,
                "a password in the configuration is in clear text in the state and in the inventory",
                "let ssh log in with a key, and let sudo ask for none",
            )
        if _UNPINNING.fullmatch(name) and (name, variables[name]) != ("ansible_connection", "ssh"):
            yield Breach(
                "host-keys-are-pinned",
                name,
                "can make Ansible go past the pinned host keys",
                "take it out; jump hosts, ports, logins and identity files have keys of their own in the stack's file",
            )


def _unverified(variables: Mapping[str, Any]) -> Iterator[Breach]:
    if _is_off(variables.get("ai_verify_ssl", True)):
        yield Breach(
            "tls-is-verified",
            "ai_verify_ssl",
            "turns TLS verification off: whoever answers gets the upstream key",
            "take it out; a certificate authority of your own goes into ai_custom_ca",
        )
    url = urlsplit(str(variables.get("ai_base_url") or ""))
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        yield Breach(
            "tls-is-verified",
            "ai_base_url",
            "sends the upstream key over the network without TLS",
            "write an address that starts with https://",
        )


def _open_gateway(variables: Mapping[str, Any]) -> Iterator[Breach]:
    host = str(variables.get("ai_gateway_host") or "127.0.0.1")
    is_listening = variables.get("ai_gateway_port", 1) not in (0, "0")
    if is_listening and not is_loopback(host) and not _has_token(variables.get("ai_tenants")):
        yield Breach(
            "gateways-need-tokens",
            "ai_gateway_host",
            f"the gateway listens on {host}, and no tenant has a token",
            "give each caller a token_sha256 in ai_tenants, or leave the gateway on 127.0.0.1",
        )


def _has_token(tenants: object) -> bool:
    if not isinstance(tenants, Mapping):
        return False
    return any(isinstance(tenant, Mapping) and tenant.get("token_sha256") for tenant in tenants.values())


def is_loopback(host: str) -> bool:
    """Whether an address is one that only its own machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_off(value: object) -> bool:
    return value is False or value == 0 or str(value).lower() in {"false", "no", "off", "0"}


def over_quota(hosts: Mapping[str, Mapping[str, Any]], account: AccountSettings) -> Iterator[Breach]:
    """What all hosts together may send, against what the provider grants the account.

    Args:
        hosts: variables of each host of the stack.
        account: requests and tokens a minute that the whole account has.
    """
    for variable, name, granted in (("ai_rpm", "rpm", account.rpm), ("ai_tpm", "tpm", account.tpm)):
        if granted is None:
            continue
        usual = role_defaults()[variable]
        limits = {host: _whole(own.get(variable, usual)) for host, own in hosts.items()}
        unlimited = [host for host, limit in limits.items() if limit <= 0]
        if unlimited:
            yield Breach(
                "limits-are-within-quota",
                name,
                f"{', '.join(unlimited[:3])} has no limit ({variable} 0), the account has {granted} a minute",
                f"give each host its part as {variable}",
            )
        elif sum(limits.values()) > granted:
            yield Breach(
                "limits-are-within-quota",
                name,
                f"the hosts' {variable} add up to {sum(limits.values())} a minute, the account has {granted}",
                f"lower {variable} of a group, or ask the provider for more and raise fleet:account.{name}",
            )


def _whole(limit: object) -> int:
    """A limit as a number; what is none counts as no limit."""
    return int(limit) if isinstance(limit, int | float) else 0


def secret_in(text: str) -> str | None:
    """What kind of secret a text holds, or None."""
    return next((kind for pattern, kind in _SECRET if pattern.search(text)), None)


def texts(value: object, path: str = "") -> Iterable[tuple[str, str]]:
    """Every text in a structure, keys of mappings too, with its dotted path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield path, str(key)
            yield from texts(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, Sequence):
        for index, inner in enumerate(value):
            yield from texts(inner, f"{path}.{index}")
