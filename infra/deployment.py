"""Claims and roll-outs as resources.

A claim is there before anything is put on a host, so that a host whose first deploy failed is cleaned up too. Creating
and updating it does nothing; deleting it decommissions the host.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_command import local

from infra import facts, orders, quota
from infra.command import NOTHING, child, child_with_aws, command
from infra.findings import Finding
from infra.nodes import Captured, Fleet, Node, NodeGroup
from infra.recorded import Limits
from infra.schema import FleetSettings
from infra.waves import waves

_RUN = child("infra.run")
_RUN_WITH_AWS = child_with_aws("infra.run")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentArgs:
    """What a deployment works on.

    Attributes:
        settings: the stack's settings.
        fleet: its hosts.
        captured: what is known only once hosts are made.
        findings: what the probe found on each host.
        limits: what each group may send as of the last run.
        nonces: what each wave last ran under.
        ready: resources that come before any contact with a host.
    """

    settings: FleetSettings
    fleet: Fleet
    captured: pulumi.Output[Captured]
    findings: Mapping[str, Finding]
    limits: Mapping[str, Limits]
    nonces: Mapping[str, str]
    ready: Sequence[pulumi.Resource]


class Deployment(pulumi.ComponentResource):
    """Every host of the fleet, claimed and then deployed: groups side by side, waves of a group one after another.

    Attributes:
        results: result of the last run on each host, by host name.
    """

    results: pulumi.Output[dict[str, Any]]

    def __init__(self, name: str, args: DeploymentArgs) -> None:
        super().__init__("fleet:index:Deployment", name)
        self._args = args
        self._now = {
            group.name: facts.limits(args.settings, args.fleet, group)
            for group in args.fleet.groups
            if group.nodes
        }
        self.results = pulumi.Output.all(*[run.stdout for run in self._roll_out()]).apply(_merged)
        self.register_outputs({"results": self.results})

    def _roll_out(self) -> list[local.Command]:
        """Groups side by side; but what may send more than before waits for what may send less."""
        raised = quota.raised(self._args.limits, self._now)
        lowered = quota.lowered(self._args.limits, self._now)
        groups = [group for group in self._args.fleet.groups if group.nodes]
        runs: dict[str, list[local.Command]] = {}
        for group in sorted(groups, key=lambda group: group.name in raised):
            waits = [run for name in lowered for run in runs[name]] if group.name in raised else []
            runs[group.name] = self._waves(group, after=waits)
        return [run for group in groups for run in runs[group.name]]

    def _waves(self, group: NodeGroup, *, after: Sequence[pulumi.Resource]) -> list[local.Command]:
        """One run after another: a wave starts only where the one before it ended well."""
        claims = {node.name: self._claim(node) for node in group.nodes}
        layout = self._args.settings.groups[group.name]
        before: list[pulumi.Resource] = [*after]
        runs: list[local.Command] = []
        there = [node for node in group.nodes if not node.away]
        planned = waves(there, canary=layout.canary, serial=layout.serial)
        if not pulumi.runtime.is_dry_run():
            # Who follows the run (tools/up) shows hosts and waves out of so many.
            pulumi.log.info(f"roll-out: {group.name}: {len(there)} hosts in {len(planned)} waves")
        for index, wave in enumerate(planned, start=1):
            ready = [*self._args.ready, *(claims[node.name] for node in wave), *before]
            run = self._wave(f"{group.name}-{index}", group, wave, ready, is_first=index == 1)
            runs.append(run)
            before = [run]
        return runs

    def _claim(self, node: Node) -> local.Command:
        args = self._args
        order = args.captured.apply(
            lambda known: orders.decommission(args.settings, args.fleet, known, node=node).as_json()
        )
        return command(
            # Another instance under the same name is another host, and the old one is still to be cleaned up.
            f"claim-{node.name}" + (f"-{node.instance.id}" if node.instance else ""),
            create=NOTHING,
            delete=_RUN_WITH_AWS if node.instance else _RUN,
            stdin=order,
            facts={"CLAIM": args.fleet.claim(node.name), "ADDRESS": node.address},
            parent=self,
            depends_on=[*args.ready],
        )

    def _wave(
        self,
        name: str,
        group: NodeGroup,
        wave: Sequence[Node],
        ready: list[pulumi.Resource],
        *,
        is_first: bool,
    ) -> local.Command:
        args = self._args
        order = args.captured.apply(
            lambda known: orders.deploy(
                args.settings, args.fleet, known, group=group.name, nodes=wave, tries_keys=is_first
            ).as_json()
        )
        return command(
            name,
            create=_RUN,
            stdin=pulumi.Output.secret(order),
            facts=facts.of_wave(args.settings, args.fleet, group, wave),
            parent=self,
            last_nonce=args.nonces.get(name, ""),
            drifted=any(args.findings[node.name].needs_run for node in wave if node.name in args.findings),
            depends_on=ready,
        )


def _merged(summaries: list[str]) -> dict[str, Any]:
    return {host: result for text in summaries if text for host, result in json.loads(text)["hosts"].items()}
