"""The program's edge to Pulumi: configuration in, warnings and refusals out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi
from pulumi.runtime import config as pulumi_config

from infra import content, settings
from infra.blockers import Blocker
from infra.errors import SettingsError
from infra.findings import Finding, HostState
from infra.schema import FleetSettings


def read_settings() -> FleetSettings:
    """The stack's settings from Pulumi's configuration."""
    values = {**pulumi_config.get_config_env(), **pulumi_config.CONFIG.get()}
    hidden = {key for key in values if pulumi_config.is_config_secret(key)}
    return settings.load(
        values,
        secret=hidden,
        stack=pulumi.get_stack(),
        variables=content.role_variables(),
        models=content.listed_models(),
    )


def refuse_or_list(found: Sequence[Blocker]) -> None:
    """In a preview, names what `up` still needs and goes on; in an update, refuses.

    Raises:
        SettingsError: something is missing, and this is an update.
    """
    for blocker in found:
        pulumi.log.warn(f"up still needs: {blocker}")
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
            "look at a new preview, and require its planDigest",
        )


def say_what_waits(groups: Sequence[str]) -> None:
    """Names the groups whose limits do not rise while hosts that may use the old ones are out of reach."""
    if groups:
        pulumi.log.warn(
            f"limits of {', '.join(groups)} rise once removed hosts are gone and no host is cordoned: run up once more"
        )


def show(findings: Mapping[str, Finding]) -> None:
    """In a preview, says for each host that is not as declared what would change."""
    if not pulumi.runtime.is_dry_run():
        return
    for host, finding in findings.items():
        if finding.state in _SAID_ALOUD:
            pulumi.log.warn(finding.as_text(host))
        elif finding.state is HostState.DIFFERS or finding.differences:
            pulumi.log.info(finding.as_text(host))


_SAID_ALOUD = frozenset({HostState.UNREACHABLE, HostState.FAILED, HostState.AWAY, HostState.CORDONED})
