"""Wiring of the stack: settings → nodes → what hosts differ in → resources → outputs."""

import pulumi

from infra import cloud, fleet, house_rules, local_hosts, outputs, plan, quota, recorded, removals, stack
from infra.blockers import blockers
from infra.deployment import Deployment, DeploymentArgs
from infra.errors import FleetError
from infra.nodes import Captured
from infra.sources import local


def main() -> None:
    settings = cloud.with_api_key(stack.read_settings())
    last_run = recorded.read()
    declared = quota.compile_limits(settings, fleet.build(settings, cloud.instances(settings)))
    house_rules.check(settings, declared)
    removals.check(last_run.claims, declared, allowed=settings.max_removals)
    leaving = removals.leaving(last_run.claims, declared)
    leaving += fleet.cordoned(declared)
    declared, waiting = quota.hold_while_hosts_leave(declared, last_run.limits, leaving=leaving)
    stack.say_what_waits(waiting)
    status = local_hosts.status(settings.stack) if settings.has_local_hosts else {}
    captured = local.captured(settings.stack) if settings.has_local_hosts else Captured()

    missing = blockers(settings, declared)
    stack.refuse_or_list(missing)
    running = local_hosts.running(status)
    findings = plan.look(settings, declared, captured, running=running, last=last_run.applied)
    stack.show(findings)
    digest = plan.digest(settings, declared, findings)
    stack.refuse_another_plan(settings, digest)

    machines = local_hosts.made(settings, status, last_run.nonces)
    made = machines.captured if machines else pulumi.Output.from_input(captured)
    deployment = Deployment(
        "deployment",
        DeploymentArgs(
            settings=settings,
            fleet=declared,
            captured=made,
            findings=findings,
            limits=last_run.limits,
            nonces=last_run.nonces,
            ready=machines.ready if machines else [],
        ),
    )
    for name, value in outputs.reach(settings, declared, made).items():
        pulumi.export(name, value)
    pulumi.export("blockers", [str(blocker) for blocker in missing])
    pulumi.export("plan", {host: finding.as_output() for host, finding in findings.items()})
    pulumi.export("planDigest", digest)
    pulumi.export("hosts", deployment.results)


try:
    main()
except FleetError as error:
    raise pulumi.RunError(str(error)) from None
