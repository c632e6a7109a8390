"""Wiring of the stack: settings → nodes → what hosts differ in → resources → outputs."""

import pulumi

from infra import fleet, local_hosts, outputs, plan, stack
from infra.blockers import blockers
from infra.deployment import Deployment, DeploymentArgs
from infra.errors import FleetError
from infra.sources import local


def main() -> None:
    settings = stack.read_settings()
    declared = fleet.build(settings)
    status = local_hosts.status(settings.stack) if settings.has_local_hosts else {}
    captured = local.captured_host_keys(settings.stack) if settings.has_local_hosts else {}

    missing = blockers(settings, declared, captured)
    stack.refuse_or_list(missing)
    findings = plan.look(settings, declared, captured, running=local_hosts.running(status))
    stack.show(findings)

    machines = local_hosts.LocalHosts("local", settings, status) if settings.has_local_hosts else None
    host_keys = machines.host_keys if machines else pulumi.Output.from_input({})
    deployment = Deployment(
        "deployment",
        DeploymentArgs(
            settings=settings,
            fleet=declared,
            host_keys=host_keys,
            findings=findings,
            ready=machines.ready if machines else [],
        ),
    )
    for name, value in outputs.reach(settings, declared, host_keys).items():
        pulumi.export(name, value)
    pulumi.export("blockers", [str(blocker) for blocker in missing])
    pulumi.export("plan", {host: finding.as_output() for host, finding in findings.items()})
    pulumi.export("hosts", deployment.results)


try:
    main()
except FleetError as error:
    raise pulumi.RunError(str(error)) from None
