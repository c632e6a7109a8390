"""The order of a run: every group's waves, and in which turn limits move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from infra.config.schema import FleetSettings
from infra.hosts.inventory import precedence
from infra.hosts.model import Fleet
from infra.hosts.waves import Waves, waves
from infra.plan.finding import Finding, HostState
from infra.state import quota, turns
from infra.state.last_run import HostLimits, Recorded
from infra.state.turns import Turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What a run does in which order.

    Attributes:
        fleet: the hosts, with the limits that they get in this run; hosts that wait for theirs are away.
        waves: each group's waves.
        turns: which groups come first, and whose limits rise only with the next run.
    """

    fleet: Fleet
    waves: Mapping[str, Waves]
    turns: Turns


def schedule(settings: FleetSettings, fleet: Fleet, last: Recorded) -> Schedule:
    """The order of a run on a fleet whose limits are compiled, after what the last run left."""
    planned = _waves(settings, fleet, last)
    names = {group: [[node.name for node in wave] for wave in order] for group, order in planned.items()}
    declared = quota.limits_of(precedence(fleet, settings.vars), fleet)
    found = turns.turns(last.limits, declared, names, settings.account)
    scheduled = turns.apply(fleet, found)
    return Schedule(fleet=scheduled, waves=_waves(settings, scheduled, last), turns=found)


def as_found(last: Recorded, findings: Mapping[str, Finding], declared: Mapping[str, HostLimits]) -> Recorded:
    """What the last run left, with the limits that hosts really have: a state knows nothing of a run that failed.

    Args:
        last: the last run, by the state.
        findings: what a probe found.
        declared: limits that the probe compared with.
    """
    real = dict(last.limits)
    for host, finding in findings.items():
        if finding.state in _ANSWERED and finding.seen.get("release"):
            real[host] = _found(finding, last.limits.get(host), declared[host])
    return replace(last, limits=real)


def _found(finding: Finding, recorded: HostLimits | None, declared: HostLimits) -> HostLimits:
    """Where a host's configuration is as declared, so are its limits. Elsewhere those of models may be either."""
    if "limits" not in finding.seen:
        return declared
    rpm, tpm = finding.seen["limits"]
    models = turns.larger_models(recorded.models if recorded else {}, declared.models)
    return replace(declared, rpm=rpm, tpm=tpm, models=models)


_ANSWERED = frozenset({HostState.SAME, HostState.DIFFERS})


def _waves(settings: FleetSettings, fleet: Fleet, last: Recorded) -> dict[str, Waves]:
    return {
        group.name: waves(
            [node for node in group.nodes if not node.away],
            canary=settings.groups[group.name].canary,
            serial=settings.groups[group.name].serial,
            recorded=last.waves.get(group.name, ()),
        )
        for group in fleet.groups
        if group.nodes
    }
