"""What a run tells its user: warnings, findings and refusals."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import pulumi

from infra.config.schema import FleetSettings
from infra.errors import SettingsError
from infra.plan import drift
from infra.plan.blockers import Blocker
from infra.plan.finding import Finding, HostState
from infra.plan.registry import LONGEST_AGE_S, Words
from infra.state.last_run import Claimed
from infra.state.turns import Turns
from infra.terminal import coloured, inert

_LISTED = 10


def refuse_or_list(found: Sequence[Blocker]) -> None:
    """In a preview, names what `up` still needs and goes on; in an update, refuses.

    Raises:
        SettingsError: something is missing, and this is an update.
    """
    for blocker in found:
        pulumi.log.warn(inert(f"up still needs: {blocker}"))
    if found and not pulumi.runtime.is_dry_run():
        first = found[0]
        raise SettingsError(first.culprit, first.reason, first.remedy)


def refuse_another_plan(settings: FleetSettings, digest: str) -> None:
    """In an update, refuses where the plan that was agreed on no longer holds.

    Raises:
        SettingsError: `requirePlan` names another plan than the one that holds now.
    """
    wanted = settings.require_plan
    if wanted and wanted != digest and not pulumi.runtime.is_dry_run():
        raise SettingsError(
            "fleet:requirePlan",
            f"plan {wanted} no longer holds: hosts or configuration have changed since, and the plan is now {digest}",
            "run a new preview, and set its planDigest",
        )


def say_what_waits(turns: Turns) -> None:
    """Names the hosts whose limits rise with the next run, as others may use theirs until then."""
    for hosts, what in ((turns.held, "keep their limits"), (turns.waiting, "are not deployed")):
        if hosts:
            pulumi.log.warn(
                f"{_some(hosts)} {what} in this run: what they should get is in use until other hosts are lowered, "
                "removed or uncordoned; run up again"
            )


def say_who_was_contacted(words: Words, findings: Mapping[str, Finding]) -> None:
    """Says which way a preview looked that goes by the registry."""
    if words.trouble:
        pulumi.log.warn(f"fleet:probe registry: {words.trouble}; every host was contacted")
        return
    by_word = [host for host, finding in findings.items() if finding.is_by_word]
    pulumi.log.info(
        f"fleet:probe registry: {len(by_word)} of {len(findings)} hosts reported within the last "
        f"{LONGEST_AGE_S} s that they are as last applied, and were not contacted; up checks every host"
    )


def say_how_quota_moves(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """In a preview, names the hosts that begin or end to share their quota, or share it over another engine.

    Args:
        before: the engine of each host that the last run left, "" where its share was fixed.
        now: the engine of each host that is declared.
    """
    if not pulumi.runtime.is_dry_run():
        return
    moves: dict[tuple[str, str], list[str]] = {}
    for host in before.keys() & now.keys():
        if before[host] != now[host]:
            moves.setdefault((before[host], now[host]), []).append(host)
    for (was, will), hosts in sorted(moves.items()):
        pulumi.log.info(f"{_some(hosts)}: {_quota_move(was, will)}")


def _quota_move(was: str, will: str) -> str:
    if not was:
        return f"quota moves from fixed shares to one shared through {will}; each host contributes its share"
    slow = (
        "for three minutes, until what it lent is back, each host has only its floor; then it has its share"
    )
    return (
        f"quota moves from {was} to {will}; {slow}" if will else f"quota moves back to fixed shares; {slow}"
    )


def say_who_leaves(leaving: Mapping[str, Claimed]) -> None:
    """In a preview, names the machines that `up` cleans up."""
    if leaving and pulumi.runtime.is_dry_run():
        machines = [
            f"{claim.host} ({claim.instance.get('id') or claim.address})" for claim in leaving.values()
        ]
        pulumi.log.warn(
            f"up removes service, files, key and user from {_some(machines)}: no longer in this stack"
        )


def _some(hosts: Iterable[str]) -> str:
    names = sorted(hosts)
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if names[_LISTED:] else "")


def show(findings: Mapping[str, Finding]) -> None:
    """In a preview, says what would change host by host, hosts that are alike together, and then the sums."""
    if not findings or not pulumi.runtime.is_dry_run():
        return
    for hosts, finding in alike(findings):
        if finding.state in _ONE_CAUSE:
            _show_cause({host: findings[host] for host in hosts})
            continue
        say = pulumi.log.warn if finding.state in _SAID_ALOUD else pulumi.log.info
        # A change is read host by host.
        names = [_some(hosts)] if finding.state is HostState.SAME else hosts
        say(_shown(names, finding))
    pulumi.log.info(sums(findings))
    _say_what_was_not_seen(findings)


def _show_cause(suffering: Mapping[str, Finding]) -> None:
    """A cause is one, however many hosts suffer from it; what is planned for them may differ all the same."""
    finding = next(iter(suffering.values()))
    plans: dict[tuple[str, ...], list[str]] = {}
    for host, each in suffering.items():
        plans.setdefault(each.bodies(), []).append(host)
    if len(plans) == 1:
        pulumi.log.warn(_shown([counted(suffering)], finding))
        return
    pulumi.log.warn(_shown([counted(suffering)], replace(finding, differences=())))
    for bodies, hosts in plans.items():
        if bodies:
            pulumi.log.info(_shown(hosts, replace(suffering[hosts[0]], message=drift.FROM_LAST)))


def _shown(names: Iterable[str], finding: Finding) -> str:
    return "\n".join([*(inert(finding.headline(name)) for name in names), *map(coloured, finding.bodies())])


def counted(hosts: Collection[str]) -> str:
    """All of the names, and how many they are: `api-01, api-02 (2 hosts)`."""
    return ", ".join(hosts) + (f" ({len(hosts)} hosts)" if len(hosts) > 1 else "")


def _say_what_was_not_seen(findings: Mapping[str, Finding]) -> None:
    """Of hosts that were reached and could not be looked at, that their plan is no look at them."""
    failed = [
        host
        for host, finding in findings.items()
        if finding.state is HostState.FAILED and drift.FROM_LAST in finding.message
    ]
    if failed:
        pulumi.log.warn(
            f"probing {_some(failed)} failed: the plan for them is based on what was last applied, not on the hosts, "
            "and up may fail in the same way; fix the cause above first"
        )


def alike(findings: Mapping[str, Finding]) -> list[tuple[list[str], Finding]]:
    """Hosts of which the same is to be said, in the order of the first; not those of which there is nothing to say."""
    groups: dict[tuple[str, str, tuple[str, ...]], tuple[list[str], Finding]] = {}
    for host, finding in findings.items():
        is_noted = finding.state is HostState.SAME and finding.message
        if (
            finding.state in _SAID_ALOUD
            or finding.state is HostState.DIFFERS
            or finding.differences
            or is_noted
        ):
            plan = () if finding.state in _ONE_CAUSE else finding.bodies()
            key = (finding.state.value, finding.message, plan)
            groups.setdefault(key, ([], finding))[0].append(host)
    return list(groups.values())


def sums(findings: Mapping[str, Finding]) -> str:
    """`3 hosts: 2 differ (1 by drift), 1 as declared: web-prod-03`, in the order of the states."""
    parts = []
    for state, words in _SUMMED.items():
        hosts = [host for host, finding in findings.items() if finding.state is state]
        if not hosts:
            continue
        drifted = sum(any(each.is_drift for each in findings[host].differences) for host in hosts)
        by_drift = f" ({drifted} by drift)" if drifted else ""
        # The others have a line of their own above, or are named with what `up` needs.
        named = f": {_some(hosts)}" if state is HostState.SAME else ""
        parts.append(f"{len(hosts)} {words}{by_drift}{named}")
    return f"{len(findings)} host{'' if len(findings) == 1 else 's'}: {', '.join(parts)}"


_SAID_ALOUD = frozenset({HostState.UNREACHABLE, HostState.FAILED, HostState.AWAY, HostState.CORDONED})
_ONE_CAUSE = frozenset({HostState.UNREACHABLE, HostState.FAILED})
_SUMMED: Mapping[HostState, str] = {
    HostState.DIFFERS: "to change",
    HostState.ABSENT: "to create",
    HostState.FAILED: "failed",
    HostState.UNREACHABLE: "unreachable",
    HostState.AWAY: "away",
    HostState.CORDONED: "cordoned",
    HostState.BLOCKED: "blocked",
    HostState.UNSEEN: "not probed",
    HostState.SAME: "as declared",
}
