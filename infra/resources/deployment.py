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

from infra import run_slots
from infra.config.schema import FleetSettings
from infra.hosts.model import Captured, Fleet, Node, NodeGroup
from infra.hosts.waves import Waves
from infra.plan.finding import Finding
from infra.plan.visible_inputs import VisibleInputs
from infra.playbook import requests
from infra.resources.command import NOTHING, child, child_with_aws, command
from infra.state.turns import Turns

_RUN = child("infra.run")
_RUN_WITH_AWS = child_with_aws("infra.run")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentArgs:
    """What a deployment works on.

    Attributes:
        settings: the stack's settings.
        fleet: its hosts.
        captured: what is known only once hosts are made.
        visible: what a reader sees of each run.
        waves: the order of every group's roll-out.
        turns: which groups come first.
        claims: name of the resource that claims each host, by the host's name.
        findings: what the probe found on each host.
        nonces: what each wave last ran under.
        ready: resources that come before any contact with a host.
        folder: this project's folder below that of the Pulumi program.
    """

    settings: FleetSettings
    fleet: Fleet
    captured: pulumi.Output[Captured]
    visible: VisibleInputs
    waves: Mapping[str, Waves]
    turns: Turns
    claims: Mapping[str, str]
    findings: Mapping[str, Finding]
    nonces: Mapping[str, str]
    ready: Sequence[pulumi.Resource]
    folder: str = ""


class Deployment(pulumi.ComponentResource):
    """Every host of the fleet, claimed and then deployed: groups side by side, waves of a group one after another.

    Attributes:
        results: result of the last run on each host, by host name.
    """

    results: pulumi.Output[dict[str, Any]]

    def __init__(self, name: str, args: DeploymentArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fleet:index:Deployment", name, None, opts)
        self._args = args
        self.results = pulumi.Output.all(*[run.stdout for run in self._roll_out()]).apply(_merged)
        self.register_outputs({"results": self.results})

    def _roll_out(self) -> list[local.Command]:
        """Groups side by side; but what may send more than before waits for what may send less."""
        turns = self._args.turns
        groups = [group for group in self._args.fleet.groups if group.nodes]
        runs: dict[str, list[local.Command]] = {}
        for group in sorted(groups, key=lambda group: group.name in turns.rising):
            first = sorted(turns.falling) if group.name in turns.rising else []
            runs[group.name] = self._waves(group, after=[run for name in first for run in runs.get(name, ())])
        return [run for group in groups for run in runs[group.name]]

    def _waves(self, group: NodeGroup, *, after: Sequence[pulumi.Resource]) -> list[local.Command]:
        """One run after another: a wave starts only where the one before it ended well."""
        claims = {node.name: self._claim(node) for node in group.nodes}
        before: list[pulumi.Resource] = [*after]
        runs: list[local.Command] = []
        planned = self._args.waves.get(group.name, ())
        if not pulumi.runtime.is_dry_run():
            # Who follows the run (tools/up) shows hosts and waves out of so many.
            hosts, waves = sum(map(len, planned)), len(planned)
            parts = f"{hosts} host{'s' * (hosts != 1)} in {waves} wave{'s' * (waves != 1)}"
            pulumi.log.info(f"roll-out: {group.name}: {parts}")
        for index, wave in enumerate(planned, start=1):
            ready = [*self._args.ready, *(claims[node.name] for node in wave), *before]
            run = self._wave(f"{group.name}-{index}", group, wave, ready, is_first=index == 1)
            runs.append(run)
            before = [run]
        return runs

    def _claim(self, node: Node) -> local.Command:
        args = self._args
        request = args.captured.apply(
            lambda known: requests.decommission(
                args.settings, args.fleet, known, node=node, seen=args.visible.seen
            ).as_json()
        )
        has_secrets = bool(args.visible.secrets_of(node))
        return command(
            args.claims[node.name],
            create=NOTHING,
            delete=_RUN_WITH_AWS if node.instance else _RUN,
            stdin=pulumi.Output.secret(request) if has_secrets else request,
            visible_inputs={"CLAIM": args.fleet.claim(node.name), "ADDRESS": node.address},
            parent=self,
            depends_on=[*args.ready],
            folder=args.folder,
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
        request = args.captured.apply(
            lambda known: requests.deploy(
                args.settings, args.fleet, known, group=group.name, nodes=wave, tries_keys=is_first
            ).as_json()
        )
        return command(
            name,
            create=_RUN,
            stdin=pulumi.Output.secret(request),
            visible_inputs=args.visible.of_wave(group.name, wave),
            parent=self,
            last_nonce=args.nonces.get(name, ""),
            drifted=any(args.findings[node.name].needs_run for node in wave if node.name in args.findings),
            depends_on=ready,
            timeout_s=longest_run_s(
                len(wave), gate_s=args.settings.gate.seconds, groups=len(args.settings.groups)
            ),
            folder=args.folder,
        )


def longest_run_s(hosts: int, *, gate_s: float, groups: int = 1) -> int:
    """Seconds that a wave may take: its hosts are worked on side by side, and each of them is watched, or put back.

    Where there are more groups than runs go side by side, it may first wait for as many others.
    """
    rounds, turns = -(-hosts // _SIDE_BY_SIDE), -(-groups // run_slots.AT_ONCE)
    return turns * (_START_S + rounds * (2 * int(gate_s) + _A_HOST_S))


# Ansible's forks (ansible/ansible.cfg).
_SIDE_BY_SIDE = 50
# The artefact's first build, and a slow control machine.
_START_S = 1200
# Copying and installing a release over a slow line, health check, and the same backwards.
_A_HOST_S = 900


def _merged(summaries: list[str]) -> dict[str, Any]:
    return {host: result for text in summaries if text for host, result in json.loads(text)["hosts"].items()}
