"""What no stack may do, whatever its users write: pure judgements of what hosts are told.

A rule here must not be skipped, so the settings enforce it. The policy pack (`policy/`) judges the resources by the
same functions, and has rules beyond these that a team may soften.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from infra.config.precedence import ALL, Precedence
from infra.config.schema import AccountSettings, FleetSettings
from infra.errors import SettingsError, raise_all
from infra.hosts.contradictions import contradictions
from infra.hosts.inventory import precedence
from infra.hosts.model import Fleet, NodeGroup
from infra.key_forms import PREFIX, REST, SHORTEST
from infra.masking import mask_forms
from infra.project_files import role_defaults
from infra.secret_texts import reveal

DEVELOPMENT = "dev"
#: Of each share one request is the host's floor.
LEAST_LENDABLE_RPM = 2

_SECRET = (
    (re.compile(f"{PREFIX}{REST}{{{SHORTEST},}}"), "an upstream key"),
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
        SettingsError: every breach, with the configuration key that it is in.
    """
    raise_all(broken(settings, fleet), hidden=settings.secrets.values())


def broken(settings: FleetSettings, fleet: Fleet) -> Iterator[SettingsError]:
    """Every breach of a rule of the house."""
    for path, text in texts(settings.model_dump(mode="json", by_alias=True)):
        if kind := secret_in(text):
            yield SettingsError(
                f"fleet:{mask_forms(path)}",  # a name in it may be a secret too
                f"holds {kind} in clear text",
                "remove it, treat it as disclosed, and set secrets with 'pulumi config set --secret'",
            )
    seen = precedence(fleet, settings.vars)
    for group in fleet.groups:
        yield from _broken_by_group(settings, seen, group)
    if settings.account:
        hosts = {node.name: seen.variables(node.name) for node in fleet.targets}
        for breach in over_quota(hosts, settings.account):
            yield SettingsError(f"fleet:account.{breach.variable}", breach.reason, breach.remedy)
        for breach in not_lendable(hosts):
            yield SettingsError("fleet:coordination", breach.reason, breach.remedy)


def _broken_by_group(settings: FleetSettings, seen: Precedence, group: NodeGroup) -> Iterator[SettingsError]:
    is_local = settings.groups[group.name].source == "local"
    # Hosts without variables of their own are all as their group is.
    alike = {node.name if node.variables else "": node.name for node in group.nodes}
    for host in alike.values():
        variables = seen.variables(host)
        real = reveal(variables, settings.secrets)
        for breach in breaches(variables, settings.environment, real=real):
            # The gateways of local hosts get the token that is made with them.
            if not (is_local and breach.rule == "gateways-need-tokens"):
                key = _written_as(settings, breach.variable)
                key = key or f"{_place(seen, group.name, host, breach.variable)}.{breach.variable}"
                yield SettingsError(key, breach.reason, breach.remedy)
        for found in contradictions(real):
            place = _place(seen, group.name, host, found.variable)
            yield SettingsError(f"{place}.{found.variable}", found.reason, found.remedy)


def _written_as(settings: FleetSettings, variable: str) -> str:
    """The key of a variable that the settings made of a part of their own; "" for any other."""
    name, _, path = variable.partition(".")
    if name != "ai_upstreams" or not settings.upstreams:
        return ""
    return f"fleet:upstreams.{path.removesuffix('.base_url')}.baseUrl"


def _place(seen: Precedence, group: str, host: str, variable: str) -> str:
    """The configuration key of the place that decides a host's variable."""
    name = variable.partition(".")[0]
    scopes = [scope for scope in seen.scopes(host) if name in scope.variables]
    if not scopes or scopes[-1].name == ALL:
        return "fleet:vars"
    if scopes[-1].depth is None:
        return f"fleet:groups.{group}.hosts.{host}.vars"
    return f"fleet:groups.{scopes[-1].name}.vars"


def breaches(
    variables: Mapping[str, Any], environment: str, *, real: Mapping[str, Any] | None = None
) -> Iterator[Breach]:
    """The rules that the variables of one host break.

    Args:
        variables: all variables that the host sees, expressions in the place of secret ones.
        environment: the stack's environment; `dev` may leave TLS unverified.
        real: the same with the secrets in their places, where they are known.
    """
    known = variables if real is None else real
    if environment != DEVELOPMENT:
        yield from _unverified(known)
    yield from _open_gateway(known)
    for name in variables:
        if _PASSWORD.fullmatch(name) and not str(variables[name]).startswith("{{"):
            yield Breach(
                "secrets-stay-secret",
                name,
                "a password in the configuration is in clear text in the state and in the inventory",
                "set it with 'pulumi config set --secret --path', and treat this one as disclosed",
            )
        if _UNPINNING.fullmatch(name) and (name, variables[name]) != ("ansible_connection", "ssh"):
            yield Breach(
                "host-keys-are-pinned",
                name,
                "can make Ansible bypass the pinned host keys",
                "remove it; jump hosts, ports, logins and identity files have keys of their own in the stack's file",
            )


def _unverified(variables: Mapping[str, Any]) -> Iterator[Breach]:
    if _is_off(variables.get("ai_verify_ssl", True)):
        yield Breach(
            "tls-is-verified",
            "ai_verify_ssl",
            "turns TLS verification off: whoever answers gets the upstream key",
            "remove it; put a CA of your own into ai_custom_ca",
        )
    for variable, address in _where_keys_go(variables):
        url = urlsplit(address)
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            yield Breach(
                "tls-is-verified",
                variable,
                "sends the upstream key over the network without TLS",
                "write an address that starts with https://",
            )
    engine = urlsplit(str(variables.get("ai_coordination_endpoint") or ""))
    if engine.scheme == "redis" and not is_loopback(engine.hostname or ""):
        yield Breach(
            "tls-is-verified",
            "ai_coordination_endpoint",
            "sends the engine's password over the network without TLS: whoever has it can change the quota",
            "write an address that starts with rediss://",
        )


def _where_keys_go(variables: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Variables with an address that a key is sent to, each with the address."""
    if not _is_off(variables.get("ai_needs_key", True)):
        yield "ai_base_url", str(variables.get("ai_base_url") or "")
    upstreams = variables.get("ai_upstreams")
    for name, upstream in upstreams.items() if isinstance(upstreams, Mapping) else ():
        if isinstance(upstream, Mapping) and not _is_off(upstream.get("needs_key", True)):
            yield f"ai_upstreams.{name}.base_url", str(upstream.get("base_url") or "")


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
        limits = {host: whole_limit(own.get(variable, usual)) for host, own in hosts.items()}
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


def not_lendable(hosts: Mapping[str, Mapping[str, Any]]) -> Iterator[Breach]:
    """What is wrong with the shares of hosts that lend them to each other.

    Args:
        hosts: variables of each host of the stack.
    """
    sharing = {host: own for host, own in hosts.items() if own.get("ai_coordination_endpoint")}
    rpm, tpm = ({host: _limit(own, name) for host, own in sharing.items()} for name in ("ai_rpm", "ai_tpm"))
    small = [host for host, limit in rpm.items() if 0 < limit < LEAST_LENDABLE_RPM]
    if small:
        yield Breach(
            "shares-can-be-lent",
            "ai_rpm",
            f"{', '.join(small[:3])} has {rpm[small[0]]} request a minute, which is its floor and never lent",
            f"give each host {LEAST_LENDABLE_RPM} or more, or leave fleet:coordination out",
        )
    without = [host for host, limit in tpm.items() if limit <= 0]
    if without and len(without) < len(tpm):
        yield Breach(
            "shares-can-be-lent",
            "ai_tpm",
            f"{', '.join(without[:3])} has no limit on tokens, and other hosts share theirs",
            "give every host an ai_tpm (fleet:account.tpm and shares do), or none",
        )


def _limit(variables: Mapping[str, Any], name: str) -> int:
    return whole_limit(variables.get(name, role_defaults()[name]))


def whole_limit(limit: object) -> int:
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
