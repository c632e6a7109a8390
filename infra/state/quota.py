"""From the account's quota and a share a group to each host's limits, as arithmetic that is shown where it fails."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from infra.config.precedence import Precedence
from infra.config.schema import AccountSettings, FleetSettings, ModelLimitSettings
from infra.errors import SettingsError
from infra.hosts.house_rules import whole_limit
from infra.hosts.model import Fleet, NodeGroup
from infra.project_files import role_defaults
from infra.state.last_run import MODEL_LIMITS, HostLimits, model_limits

VARIABLES = ("ai_rpm", "ai_tpm")
#: What of a model's limits is no amount, and goes to every host as it is.
UNDIVIDED = frozenset({"burst_s", "counts"})


def compile_limits(settings: FleetSettings, fleet: Fleet) -> Fleet:
    """The fleet with `ai_rpm` and `ai_tpm` of every group that declares a share of the account.

    Each host gets the whole part of its group's share divided by the group's hosts, so that the hosts together never
    exceed it.

    Raises:
        SettingsError: shares without an account, above the whole of it, or too small for a request a minute a host.
    """
    shares = {name: group.share for name, group in settings.groups.items() if group.share is not None}
    if not shares:
        return fleet
    if settings.account is None:
        raise SettingsError(
            f"fleet:groups.{next(iter(shares))}.share",
            "is a share, but there is no account to share",
            "declare fleet:account with rpm and tpm",
        )
    _check_sum(shares, settings.account)
    return replace(fleet, groups=tuple(_limited(group, shares, settings.account) for group in fleet.groups))


def _check_sum(shares: Mapping[str, float], account: AccountSettings) -> None:
    total = math.fsum(shares.values())
    if total > 1 + 1e-9:
        sum_of = " + ".join(f"{name} {share:g}" for name, share in shares.items())
        raise SettingsError(
            "fleet:groups",
            f"shares add up to {total:g}: {sum_of}; of {account.rpm} requests a minute that is {total * account.rpm:g}",
            "lower a share, so that they add up to 1 at most",
        )


def _limited(group: NodeGroup, shares: Mapping[str, float], account: AccountSettings) -> NodeGroup:
    share = shares.get(group.name)
    if share is None or not group.nodes:
        return group
    for variable in (*VARIABLES, MODEL_LIMITS):
        if variable in group.variables:
            raise SettingsError(
                f"fleet:groups.{group.name}.vars.{variable}",
                "is set beside a share",
                "remove one of the two",
            )
    limits: dict[str, Any] = {"ai_rpm": _each(group, share, account.rpm, unit="rpm")}
    if account.tpm is not None:
        limits["ai_tpm"] = _each(group, share, account.tpm, unit="tpm")
    if account.models:
        limits[MODEL_LIMITS] = {
            model: _model_limits(group, share, each, model=model) for model, each in account.models.items()
        }
    return replace(group, variables={**group.variables, **limits})


def _model_limits(
    group: NodeGroup, share: float, granted: ModelLimitSettings, *, model: str
) -> dict[str, Any]:
    """A host's part of a model's limits; what is no amount goes as it is."""
    asked = granted.model_dump(exclude_defaults=True)
    return {
        name: _each(group, share, value, unit=f"{name} of {model}") if name not in UNDIVIDED else value
        for name, value in asked.items()
    }


def _each(group: NodeGroup, share: float, granted: int, *, unit: str) -> int:
    """A host's whole part of its group's share."""
    hosts = len(group.nodes)
    # The share is a decimal that a user wrote: 0.29 * 100 is 29, not 28.999999999999996.
    limit = math.floor(round(granted * share, 6) / hosts)
    if limit < 1:
        raise SettingsError(
            f"fleet:groups.{group.name}.share",
            f"{granted} {unit} x {share:g} / {hosts} hosts = {granted * share / hosts:g} {unit} a host, less than one",
            "raise the share, or take hosts out",
        )
    return limit


def limits_of(seen: Precedence, fleet: Fleet) -> dict[str, HostLimits]:
    """What each host may send, by the variables that it sees."""
    usual = role_defaults()
    found: dict[str, HostLimits] = {}
    for group in fleet.groups:
        for node in group.nodes:
            variables = seen.variables(node.name)
            rpm, tpm = (whole_limit(variables.get(name, usual[name])) for name in VARIABLES)
            found[node.name] = HostLimits(group=group.name, rpm=rpm, tpm=tpm, models=model_limits(variables))
    return found
