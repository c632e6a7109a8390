"""In which turn hosts get their limits, so that a run never lets all together send more than was granted.

Groups whose limits fall come first, groups in which one rises follow, and hosts that a run does not reach (those that
leave come last, cordoned ones get none) keep what they have. Where that is not enough, limits rise with the next run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from infra.config.schema import AccountSettings
from infra.hosts.model import Fleet, Node, NodeGroup
from infra.state.last_run import MODEL_LIMITS, HostLimits
from infra.state.quota import UNDIVIDED, VARIABLES

#: Amounts a minute or a day by what they are of: "rpm", "tpm", or a model with one of its limits.
Rate = Mapping[str, float]
Amounts = Mapping[str, Mapping[str, Any]]
WaveNames = Mapping[str, Sequence[Sequence[str]]]

WAITS = "it waits for limits that other hosts still use: run up again when they are done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """How limits move in one run.

    Attributes:
        falling: groups in which some limit falls and none rises. They come first.
        rising: groups in which some limit rises. They come after all that fall.
        held: limits that hosts keep in this run, although they are to rise.
        waiting: hosts that get no run, as nothing is left for them yet.
    """

    falling: frozenset[str] = frozenset()
    rising: frozenset[str] = frozenset()
    held: Mapping[str, HostLimits] = field(default_factory=dict)
    waiting: frozenset[str] = frozenset()


def turns(
    before: Mapping[str, HostLimits],
    now: Mapping[str, HostLimits],
    waves: WaveNames,
    account: AccountSettings | None,
) -> Turns:
    """How limits move from what hosts have to what they are to have.

    Args:
        before: limits of the last run, by host.
        now: limits that are declared, by host.
        waves: names of the hosts of each wave of this run, by group.
        account: what is granted to all hosts together; limits of a stack without it are nobody's quota.
    """
    rises = {g: [h for wave in hosts for h in wave if _rises(h, before, now)] for g, hosts in waves.items()}
    rising = frozenset(group for group, hosts in rises.items() if hosts)
    falls = {g for g, hosts in waves.items() if any(_falls(h, before, now) for wave in hosts for h in wave)}
    falling = frozenset(falls) - rising
    if account is None:
        return Turns(falling=falling, rising=rising)
    held = {host for group in rising for host in rises[group]}
    run = _Run(before, now, waves, falling)
    for group in sorted(rising):
        admitted = held - set(rises[group])
        if run.stays_within(account, held=admitted, group=group):
            held = admitted
    waiting = frozenset(host for host in held if host not in before)
    kept = {host: _lower(before[host], now[host]) for host in held - waiting}
    return Turns(falling=falling, rising=rising, held=kept, waiting=waiting)


def apply(fleet: Fleet, found: Turns) -> Fleet:
    """The fleet for this run: held limits as variables, waiting hosts away."""
    return replace(fleet, groups=tuple(_applied(group, found) for group in fleet.groups))


def _applied(group: NodeGroup, found: Turns) -> NodeGroup:
    kept = [found.held.get(node.name) for node in group.nodes]
    nodes = tuple(replace(n, away=WAITS) if n.name in found.waiting else n for n in group.nodes)
    if kept and kept[0] and all(limits == kept[0] for limits in kept) and VARIABLES[0] in group.variables:
        own = {name: value for name, value in _variables(kept[0]).items() if name in group.variables}
        return replace(group, nodes=nodes, variables={**group.variables, **own})
    return replace(group, nodes=tuple(_with_limits(node, found.held.get(node.name)) for node in nodes))


def _with_limits(node: Node, limits: HostLimits | None) -> Node:
    return replace(node, variables={**node.variables, **_variables(limits)}) if limits else node


def _variables(limits: HostLimits) -> dict[str, Any]:
    usual = dict(zip(VARIABLES, (limits.rpm, limits.tpm), strict=True))
    return usual | ({MODEL_LIMITS: limits.models} if limits.models else {})


@dataclass(frozen=True, slots=True)
class _Run:
    """One run, to find the most that hosts may send together at any moment of it."""

    before: Mapping[str, HostLimits]
    now: Mapping[str, HostLimits]
    waves: WaveNames
    falling: frozenset[str]

    def stays_within(self, account: AccountSettings, *, held: set[str], group: str) -> bool:
        """Whether the account is kept to at every moment, and by `group` what it had or is to have."""
        models = {model: each.model_dump(exclude_defaults=True) for model, each in account.models.items()}
        granted = {"rpm": account.rpm, "tpm": account.tpm or math.inf, **_amounts(models)}
        if not all(_is_within(moment, granted) for moment in self._moments(held)):
            return False
        return _is_within(self._group_at_most(group, held), self._group_may(group))

    def _moments(self, held: set[str]) -> Iterator[Rate]:
        out_of_reach = _sum(_rate(self.before[host]) for host in self._unreached())
        first = [self._most(g, held) if g in self.falling else self._start(g) for g in self.waves]
        then = [self._end(g, held) if g in self.falling else self._most(g, held) for g in self.waves]
        yield _sum([*first, out_of_reach])
        yield _sum([*then, out_of_reach])

    def _group_at_most(self, group: str, held: set[str]) -> Rate:
        leaving = (_rate(self.before[h]) for h in self._unreached() if self.before[h].group == group)
        return _sum([self._most(group, held), *leaving])

    def _group_may(self, group: str) -> Rate:
        had = _sum(_rate(limits) for limits in self.before.values() if limits.group == group)
        gets = _sum(_rate(limits) for limits in self.now.values() if limits.group == group)
        return _larger(had, gets)

    def _most(self, group: str, held: set[str]) -> Rate:
        """The most that a group's hosts may send together while wave follows wave."""
        waves = self.waves[group]
        most: Rate = {}
        for index in range(len(waves)):
            moment = _sum(
                [
                    *(self._after(host, held) for wave in waves[:index] for host in wave),
                    *(_larger(self._had(host), self._after(host, held)) for host in waves[index]),
                    *(self._had(host) for wave in waves[index + 1 :] for host in wave),
                ]
            )
            most = _larger(most, moment)
        return most

    def _start(self, group: str) -> Rate:
        return _sum(self._had(host) for wave in self.waves[group] for host in wave)

    def _end(self, group: str, held: set[str]) -> Rate:
        return _sum(self._after(host, held) for wave in self.waves[group] for host in wave)

    def _had(self, host: str) -> Rate:
        return _rate(self.before[host]) if host in self.before else {}

    def _after(self, host: str, held: set[str]) -> Rate:
        if host not in held:
            return _rate(self.now[host])
        return _rate(_lower(self.before[host], self.now[host])) if host in self.before else {}

    def _unreached(self) -> list[str]:
        reached = {host for waves in self.waves.values() for wave in waves for host in wave}
        return [host for host in self.before if host not in reached]


def _rate(limits: HostLimits) -> Rate:
    return {"rpm": limits.rpm or math.inf, "tpm": limits.tpm or math.inf, **_amounts(limits.models)}


def _amounts(models: Amounts) -> dict[str, float]:
    return {
        f"{model} {name}": float(amount)
        for model, limits in models.items()
        for name, amount in limits.items()
        if name not in UNDIVIDED and isinstance(amount, int | float)
    }


def _lower(one: HostLimits, other: HostLimits) -> HostLimits:
    """The lower one of each limit that `other` has; 0 is none."""
    rpm, tpm = (min(filter(None, pair), default=0) for pair in ((one.rpm, other.rpm), (one.tpm, other.tpm)))
    return replace(other, rpm=rpm, tpm=tpm, models=_chosen(min, one.models, other.models))


def larger_models(one: Amounts, other: Amounts) -> Amounts:
    """The larger one of each amount that `other` has."""
    return _chosen(max, one, other)


def _chosen(choose: Callable[[Any, Any], Any], one: Amounts, other: Amounts) -> Amounts:
    known = _amounts(one)
    return {
        model: {
            name: choose(amount, int(known[f"{model} {name}"])) if f"{model} {name}" in known else amount
            for name, amount in limits.items()
        }
        for model, limits in other.items()
    }


def _rises(host: str, before: Mapping[str, HostLimits], now: Mapping[str, HostLimits]) -> bool:
    return host not in before or not _is_within(_rate(now[host]), _rate(before[host]))


def _falls(host: str, before: Mapping[str, HostLimits], now: Mapping[str, HostLimits]) -> bool:
    return host in before and not _is_within(_rate(before[host]), _rate(now[host]))


def _is_within(rate: Rate, bound: Rate) -> bool:
    """Whether each amount that both speak of is: a limit that is new, or taken away, moves from no host to another."""
    return all(amount <= bound.get(name, math.inf) for name, amount in rate.items())


def _larger(one: Rate, other: Rate) -> Rate:
    return {name: max(one.get(name, 0.0), other.get(name, 0.0)) for name in {**one, **other}}


def _sum(rates: Iterable[Rate]) -> Rate:
    total: dict[str, float] = {}
    for rate in rates:
        for name, amount in rate.items():
            total[name] = total.get(name, 0.0) + amount
    return total
