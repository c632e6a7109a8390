"""From the account's quota and a share a group to each host's limits, as arithmetic that is shown where it fails."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from infra.content import role_defaults
from infra.errors import SettingsError
from infra.nodes import Fleet, NodeGroup
from infra.recorded import Limits
from infra.schema import AccountSettings, FleetSettings

_VARIABLES = ("ai_rpm", "ai_tpm")


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
            "is a share of nothing",
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
    for variable in _VARIABLES:
        if variable in group.variables:
            raise SettingsError(
                f"fleet:groups.{group.name}.vars.{variable}",
                "stands beside a share",
                "take one of the two out",
            )
    limits: dict[str, Any] = {"ai_rpm": _each(group, share, account.rpm, unit="rpm")}
    if account.tpm is not None:
        limits["ai_tpm"] = _each(group, share, account.tpm, unit="tpm")
    return replace(group, variables={**group.variables, **limits})


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


def limits_of(group: NodeGroup, variables: Mapping[str, Any]) -> Limits:
    """What a group's hosts may send, by the variables that they see."""
    usual = role_defaults()
    rpm, tpm = (int(variables.get(name, usual[name]) or 0) for name in _VARIABLES)
    return Limits(rpm, tpm, len(group.nodes))


def raised(before: Mapping[str, Limits], now: Mapping[str, Limits]) -> frozenset[str]:
    """Groups that may send more than before in all, new ones among them. They wait for those that may send less."""
    return frozenset(
        name
        for name, limits in now.items()
        if any(after > was for after, was in zip(limits.total, _total(before.get(name)), strict=True))
    )


def lowered(before: Mapping[str, Limits], now: Mapping[str, Limits]) -> frozenset[str]:
    """Groups that may send less than before in all, and nothing more."""
    less = {name for name, limits in now.items() if limits.total != _total(before.get(name))}
    return frozenset(less - raised(before, now))


def _total(limits: Limits | None) -> tuple[int, int]:
    return limits.total if limits else (0, 0)


def hold_while_hosts_leave(
    fleet: Fleet, before: Mapping[str, Limits], *, leaving: Sequence[str]
) -> tuple[Fleet, tuple[str, ...]]:
    """Keeps each host's limits from rising while hosts work within limits that a run does not lower.

    A removal comes last in a run, and a cordoned host gets none.

    Args:
        fleet: hosts with their compiled limits.
        before: limits of the last run.
        leaving: hosts that the run removes, and those that are cordoned.

    Returns:
        The fleet for this run, and the groups whose limits rise only with the next one.
    """
    if not leaving:
        return fleet, ()
    groups = tuple(_held(group, before.get(group.name)) for group in fleet.groups)
    waiting = tuple(new.name for new, old in zip(groups, fleet.groups, strict=True) if new is not old)
    return replace(fleet, groups=groups), waiting


def _held(group: NodeGroup, before: Limits | None) -> NodeGroup:
    own = {name: group.variables[name] for name in _VARIABLES if name in group.variables}
    if before is None or not own:
        return group
    least = {
        name: min(own[name], was)
        for name, was in zip(_VARIABLES, (before.rpm, before.tpm), strict=True)
        if name in own and was
    }
    if all(own[name] == limit for name, limit in least.items()):
        return group
    return replace(group, variables={**group.variables, **least})
