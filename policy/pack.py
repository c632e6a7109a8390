"""The rules as Pulumi's policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pulumi.runtime import config as pulumi_config
from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyPack,
    PolicyResource,
    ReportViolation,
    ResourceValidation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidation,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

from policy.rules import RULES, Rule
from policy.subjects import UNKNOWN, Resource, Setting, setting

NAME = "fleet"


def start() -> None:
    """Serves the pack to the engine, until it ends."""
    PolicyPack(NAME, policies=[_policy(rule) for rule in RULES], enforcement_level=EnforcementLevel.MANDATORY)


def _policy(rule: Rule) -> Policy:
    if rule.whole:
        return StackValidationPolicy(rule.name, rule.description, _of_stack(rule))
    return ResourceValidationPolicy(rule.name, rule.description, _of_resource(rule))


def _of_resource(rule: Rule) -> ResourceValidation:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        resource = _resource(args)
        for breach in rule.judge(resource, _setting()):
            report(breach, None)

    return validate


def _of_stack(rule: Rule) -> StackValidation:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        for each in args.resources:
            for breach in rule.judge(_resource(each), _setting()):
                report(breach, each.urn)

    return validate


def _resource(seen: ResourceValidationArgs | PolicyResource) -> Resource:
    return {"urn": seen.urn, "type": seen.resource_type, "name": seen.name, "props": _plain(seen.props)}


def _plain(value: Any) -> Any:
    """The SDK's proxies as plain data. They raise on what is not known yet; a rule judges what is known."""
    if isinstance(value, Mapping):
        return {key: _known(value, key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_known(value, index) for index in range(len(value))]
    return value


def _known(container: Any, key: Any) -> Any:
    try:
        return _plain(container[key])
    except UnknownValueError:
        return UNKNOWN


def _setting() -> Setting:
    """The engine hands the pack the stack's configuration, and the SDK unwraps secrets before a rule sees them."""
    return setting(dict(pulumi_config.get_config_env()), shows_secrets=True)
