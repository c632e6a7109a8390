"""The rules, each a pure function of one resource: what it answers are the breaches, none where all is well.

A rule that must never be skipped is a function of `infra.hosts.house_rules`, which the settings ask too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from infra.hosts import house_rules
from policy import subjects
from policy.subjects import Resource, Setting

PRODUCTION = frozenset({"production", "prod"})

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTENT = re.compile(r"[0-9a-f]{16,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of the pack.

    Attributes:
        name: its name, as a stack's policy configuration knows it.
        description: what it holds to, for who reads the pack's output.
        judge: the breaches of one resource.
        whole: whether it needs all hosts of the stack at once, which only the stack's own outputs show.
    """

    name: str
    description: str
    judge: Callable[[Resource, Setting], Iterator[str]]
    whole: bool = False


def tls_is_verified(resource: Resource, setting: Setting) -> Iterator[str]:
    """Outside dev, every host verifies the upstream's certificate."""
    return _house("tls-is-verified", resource, setting)


def gateways_need_tokens(resource: Resource, setting: Setting) -> Iterator[str]:
    """A gateway that other hosts can reach asks for a token."""
    return _house("gateways-need-tokens", resource, setting)


def secrets_stay_secret(resource: Resource, setting: Setting) -> Iterator[str]:
    """Only secret inputs contain a key, private key or password."""
    props: Mapping[str, Any] = resource["props"]
    found = subjects.order(resource)
    if found is not None and setting.shows_secrets:
        # The pack's SDK unwraps secrets before a rule sees them: this part of an order is where the key travels.
        props = {**props, "stdin": {name: part for name, part in found.items() if name != "secrets"}}
    for path, text in house_rules.texts(props):
        if kind := house_rules.secret_in(text):
            yield f"{path}: holds {kind} in clear text; treat it as disclosed, and pass it as a secret"
    yield from _house("secrets-stay-secret", resource, setting)


def host_keys_are_pinned(resource: Resource, setting: Setting) -> Iterator[str]:
    """The host keys of all hosts and jump hosts are pinned."""
    if pair := subjects.ssh(resource):
        config, known_hosts = pair
        known = {line.removeprefix("@cert-authority ").split(" ")[0] for line in known_hosts.splitlines()}
        unpinned = [name for name in re.findall(r"(?m)^Host (\S+)", config) if name not in {"*", *known}]
        if unpinned:
            yield f"no pinned host key for {', '.join(unpinned)}; write it as hostKeys in the stack's file"
        if set(re.findall(r"(?mi)^\s*StrictHostKeyChecking[ =]+(\S+)", config)) != {"yes"}:
            yield "ssh accepts host keys that are not pinned; write StrictHostKeyChecking yes"
    yield from _house("host-keys-are-pinned", resource, setting)


def limits_are_within_quota(resource: Resource, setting: Setting) -> Iterator[str]:
    """All hosts together may send no more than the account's quota."""
    if setting.account and resource["type"] == subjects.STACK:
        for breach in house_rules.over_quota(subjects.hosts(resource), setting.account):
            yield f"fleet:account.{breach}"


def production_does_not_debug(resource: Resource, setting: Setting) -> Iterator[str]:
    """Production logs at INFO or above."""
    for host, variables in subjects.hosts(resource).items():
        environments = {setting.environment.lower(), str(variables.get("ai_environment", "")).lower()}
        if environments & PRODUCTION and str(variables.get("ai_log_level", "")).upper() == "DEBUG":
            yield f"{host}: ai_log_level DEBUG in production; write INFO, or try it on another stack"


def artefacts_are_pinned(resource: Resource, setting: Setting) -> Iterator[str]:
    """What hosts install is pinned by a digest, not only by a version."""
    del setting
    for host, variables in subjects.hosts(resource).items():
        version, digest = variables.get("ai_client_version"), variables.get("ai_client_digest")
        if version and not digest:
            yield f"{host}: ai_client_version {version} can be built twice; pin it with ai_client_digest too"
        if digest and not _SHA256.fullmatch(str(digest)):
            yield f"{host}: ai_client_digest is not a SHA-256 of 64 hexadecimal digits; copy it from index.json"
    inputs = resource["props"].get("environment") if resource["type"] == subjects.COMMAND else None
    if (
        isinstance(inputs, Mapping)
        and "HOSTS" in inputs
        and not _CONTENT.fullmatch(str(inputs.get("CONTENT")))
    ):
        yield f"{resource['name']}: deploys something without a digest; CONTENT must be one"


def _house(rule: str, resource: Resource, setting: Setting) -> Iterator[str]:
    for host, variables in subjects.hosts(resource).items():
        for breach in house_rules.breaches(variables, setting.environment):
            if breach.rule == rule:
                yield f"{host}: {breach}"


RULES = (
    Rule(
        name="tls-is-verified",
        description="Outside dev, every host verifies the upstream's certificate.",
        judge=tls_is_verified,
    ),
    Rule(
        name="secrets-stay-secret",
        description="Only secret inputs contain a key, private key or password.",
        judge=secrets_stay_secret,
    ),
    Rule(
        name="host-keys-are-pinned",
        description="The host keys of all hosts and jump hosts are pinned.",
        judge=host_keys_are_pinned,
    ),
    Rule(
        name="limits-are-within-quota",
        description="All hosts together may send no more than the account's quota.",
        judge=limits_are_within_quota,
        whole=True,
    ),
    Rule(
        name="production-does-not-debug",
        description="Production logs at INFO or above.",
        judge=production_does_not_debug,
    ),
    Rule(
        name="artefacts-are-pinned",
        description="What hosts install is pinned by a digest, not only by a version.",
        judge=artefacts_are_pinned,
    ),
    Rule(
        name="gateways-need-tokens",
        description="A gateway that other hosts can reach asks for a token.",
        judge=gateways_need_tokens,
    ),
)
