"""The fleet as a component that another Pulumi program can hold beside its own resources.

    import pulumi
    from infra.component import Fleet, FleetArgs

    fleet = Fleet("fleet", FleetArgs(folder="ai-client-fleet"))
    pulumi.export("inventory", fleet.inventory)

Its configuration is what this project's own stacks have: keys under `fleet:` of that program's stack, secrets too. One
program holds one fleet. Hosts that the program makes itself cannot be among them, as their addresses are not known when
hosts are looked at: bring them up in a stack before, or find them by `source: ec2`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pulumi

from infra import program
from infra.config import pulumi_config
from infra.errors import FleetError, SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetArgs:
    """Where a fleet's project is.

    Attributes:
        folder: this project's checkout, as a path below the folder of the Pulumi program, such as a submodule's. It is
            in the state, so it is relative: a second clone elsewhere shows no change.
    """

    folder: str


class Fleet(pulumi.ComponentResource):
    """A fleet of hosts, each with the gateway.

    Attributes:
        inventory: the Ansible inventory, nothing secret in it.
        ssh: ssh configuration and pinned host keys.
        hosts: result of the last run on each host.
        plan: how each host stands to what is declared.
        plan_digest: what `fleet:requirePlan` holds an `up` to.
        blockers: what `up` still needs.
    """

    inventory: pulumi.Output[dict[str, Any]]
    ssh: pulumi.Output[dict[str, Any]]
    hosts: pulumi.Output[dict[str, Any]]
    plan: pulumi.Output[dict[str, Any]]
    plan_digest: pulumi.Output[str]
    blockers: pulumi.Output[list[str]]

    def __init__(self, name: str, args: FleetArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Reads the configuration, looks at the hosts, and declares what they need.

        Raises:
            pulumi.RunError: what is wrong, with culprit, reason and remedy.
        """
        super().__init__("fleet:index:Fleet", name, None, opts)
        try:
            _check_folder(args.folder)
            found = program.declare(
                pulumi_config.read_settings(),
                folder=args.folder,
                opts=pulumi.ResourceOptions(parent=self),
            )
        except FleetError as error:
            raise pulumi.RunError(str(error)) from None
        self.inventory = pulumi.Output.from_input(found["inventory"])
        self.ssh = pulumi.Output.from_input(found["ssh"])
        self.hosts = pulumi.Output.from_input(found["hosts"])
        self.plan = pulumi.Output.from_input(found["plan"])
        self.plan_digest = pulumi.Output.from_input(found["planDigest"])
        self.blockers = pulumi.Output.from_input(found["blockers"])
        self.register_outputs(found)


def _check_folder(folder: str) -> None:
    path = PurePosixPath(folder)
    if path.is_absolute() or not folder:
        raise SettingsError(
            "FleetArgs.folder",
            "is not a path below the program's folder, and would tie the state to one machine",
            "write it relative to that folder, such as 'ai-client-fleet'",
        )
