"""The whole of a run: settings → hosts → what they differ in → resources → outputs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pulumi

from infra.config.schema import FleetSettings
from infra.errors import MachineError
from infra.hosts import cloud, fleet, house_rules, local
from infra.hosts.model import Captured, Fleet
from infra.hosts.waves import Waves
from infra.key_sources import read
from infra.plan import messages, probe, registry, targets
from infra.plan.agreement import plan_digest
from infra.plan.blockers import blockers
from infra.plan.finding import Finding
from infra.plan.schedule import Schedule, as_found, schedule
from infra.plan.targets import OperationTargets
from infra.plan.visible_inputs import VisibleInputs, visible_engines
from infra.playbook import consent
from infra.playbook.consent import Machine
from infra.resources import local_hosts, outputs
from infra.resources.deployment import Deployment, DeploymentArgs
from infra.state import claims, last_run, quota
from infra.state.last_run import Claimed, Recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What a run knows before it looks at hosts.

    `recorded` is what the last run left, by the names that its machines have now; `declared` are the hosts as the
    configuration has them, and `fleet` as they are to be after this run.
    """

    settings: FleetSettings
    last: Recorded
    recorded: Recorded
    declared: Fleet
    order: Schedule
    visible: VisibleInputs
    captured: Captured
    status: local_hosts.Status

    @property
    def fleet(self) -> Fleet:
        return self.order.fleet


def declare(
    settings: FleetSettings, *, folder: str = "", opts: pulumi.ResourceOptions | None = None
) -> dict[str, Any]:
    """Declares every resource of a stack, and answers its outputs.

    Args:
        settings: the stack's settings.
        folder: this project's folder below that of the Pulumi program; "" where it is the same.
        opts: options of the components that hold the resources, such as their parent.

    Raises:
        FleetError: what is wrong, before any resource is made.
    """
    _check_machine(os.uname().sysname)
    known = _before_contact(read.with_keys(settings))
    missing = blockers(known.settings, known.fleet)
    messages.refuse_or_list(missing)
    findings = _findings(known)
    messages.show(findings)
    messages.say_how_quota_moves(*visible_engines(known.last.applied, known.visible))
    known = _after_contact(known, findings)
    messages.say_what_waits(known.order.turns)
    names, leaving = _claims(known, findings)
    digest = plan_digest(
        known.settings,
        known.fleet,
        visible=known.visible,
        waves=known.order.waves,
        leaving=leaving,
        findings=findings,
    )
    messages.refuse_another_plan(known.settings, digest)
    _note_who_leaves(known, names, leaving)
    declared = _resources(known, findings, names, folder=folder, opts=opts)
    return declared | {
        "blockers": [str(blocker) for blocker in missing],
        "plan": {host: finding.as_output() for host, finding in findings.items()},
        "planDigest": digest,
    }


def _check_machine(system: str) -> None:
    """A run that nothing would end must not begin."""
    if system != "Linux":
        raise MachineError(
            "this machine",
            f"runs {system}, where an orphaned playbook run could not be stopped",
            "run Pulumi in a Linux container or virtual machine on it, or in CI",
        )


def _goes_by_words(settings: FleetSettings) -> bool:
    """Whether hosts' own words are asked for: in a preview alone, as they decide nothing."""
    return settings.probe == "registry" and pulumi.runtime.is_dry_run()


def reached_hosts(waves: Mapping[str, Waves], told: OperationTargets) -> frozenset[str] | None:
    """Names of the hosts whose runs an operation reaches; None for all."""
    if told == OperationTargets():
        return None
    return frozenset(
        node.name
        for group, order in waves.items()
        for index, wave in enumerate(order, start=1)
        if told.reach(f"{group}-{index}")
        for node in wave
    )


def _before_contact(settings: FleetSettings) -> _Known:
    last = last_run.read()
    built = quota.compile_limits(settings, fleet.build(settings, cloud.instances(settings)))
    owner = claims.owner(
        settings.stack,
        last.claims.values(),
        declared=settings.owner,
        seeds=[settings.stack, *claims.seeds(os.environ)],
    )
    declared = replace(built, owned_as=owner)
    house_rules.check(settings, declared)
    captured = local.captured(settings.stack) if settings.has_local_hosts else Captured()
    same = claims.sameness(declared, captured, last.claims)
    names = _names(settings, declared, last, same)
    _check_removals(settings, declared, last, names)
    renamed = claims.new_names(last.claims, names, declared)
    recorded = claims.under_new_names(last, renamed)
    order = schedule(settings, declared, recorded)
    return _Known(
        settings=settings,
        last=last,
        recorded=recorded,
        declared=declared,
        order=order,
        visible=VisibleInputs(settings, order.fleet),
        captured=captured,
        status=local_hosts.status(settings.stack) if settings.has_local_hosts else {},
    )


def _findings(known: _Known) -> Mapping[str, Finding]:
    """What each host differs in, as the host itself says, or as its own words of late do."""
    words = registry.read(known.settings) if _goes_by_words(known.settings) else None
    findings = probe.look(
        known.settings,
        known.fleet,
        known.captured,
        running=local_hosts.running(known.status),
        visible=known.visible,
        last=known.last.applied,
        reached=reached_hosts(known.order.waves, targets.of_this_operation()),
        words=words,
    )
    if words is not None:
        messages.say_who_was_contacted(words, findings)
    return findings


def _after_contact(known: _Known, findings: Mapping[str, Finding]) -> _Known:
    """The same with the limits that hosts were found to have, where those make a difference to who may go first."""
    found = as_found(known.recorded, findings, known.visible.limits)
    order = schedule(known.settings, known.declared, found)
    if order.turns == known.order.turns:
        return known
    return replace(known, order=order, visible=VisibleInputs(known.settings, order.fleet))


def _names(settings: FleetSettings, declared: Fleet, last: Recorded, same: claims.Sameness) -> dict[str, str]:
    made_here = [host.name for host in local.hosts(settings)]
    return claims.resource_names(declared, last.claims, same, made_here=made_here)


def _check_removals(
    settings: FleetSettings, declared: Fleet, last: Recorded, names: Mapping[str, str]
) -> dict[str, Claimed]:
    leaving = claims.leaving(last.claims, names, declared)
    claims.check(
        leaving,
        allowed=settings.max_removals,
        is_gone=lambda claim: cloud.is_gone(claim.host, claim.instance),
    )
    return leaving


def _claims(known: _Known, findings: Mapping[str, Finding]) -> tuple[dict[str, str], dict[str, Claimed]]:
    """The resource that claims each host, and the claims that leave.

    Of a host at another address whose keys do not tell, the host's own marker does: a machine that was never claimed
    is another one, and the one that was is left behind.
    """
    declared, recorded = known.fleet, known.last.claims
    marked = {
        node.name: findings[node.name].seen.get("claim") == declared.claim(node.name)
        for node in claims.moved(declared, recorded)
        if node.name in findings
    }
    same = marked | claims.sameness(declared, known.captured, recorded)
    names = _names(known.settings, declared, known.last, same)
    leaving = _check_removals(known.settings, declared, known.last, names)
    messages.say_who_leaves(leaving)
    return names, leaving


def _note_who_leaves(known: _Known, names: Mapping[str, str], leaving: Mapping[str, Claimed]) -> None:
    """Tells the commands of this run which machines may be cleaned up, and which may not."""
    if pulumi.runtime.is_dry_run():
        return
    ending = claims.ending(known.last.claims, names)
    staying = [
        Machine(known.fleet.claim(n.name), n.address, n.instance.id if n.instance else "")
        for n in known.fleet.targets
    ]
    consent.note(
        leaving=[_machine(claim) for claim in leaving.values()],
        # Under the names that they had, too: the new name's run may come later.
        staying=[*staying, *(_machine(claim) for name, claim in ending.items() if name not in leaving)],
    )


def _machine(claim: Claimed) -> Machine:
    return Machine(claim.claim, claim.address, claim.instance.get("id", ""))


def _resources(
    known: _Known,
    findings: Mapping[str, Finding],
    names: Mapping[str, str],
    *,
    folder: str,
    opts: pulumi.ResourceOptions | None,
) -> dict[str, Any]:
    machines = local_hosts.made(known.settings, known.status, known.last.nonces, folder=folder, opts=opts)
    made = machines.captured if machines else pulumi.Output.from_input(known.captured)
    deployment = Deployment(
        "deployment",
        DeploymentArgs(
            settings=known.settings,
            fleet=known.fleet,
            captured=made,
            visible=known.visible,
            waves=known.order.waves,
            turns=known.order.turns,
            claims=names,
            findings=findings,
            nonces=known.last.nonces,
            ready=machines.ready if machines else [],
            folder=folder,
        ),
        opts=opts,
    )
    return outputs.reach(known.settings, known.fleet, made) | {"hosts": deployment.results}
