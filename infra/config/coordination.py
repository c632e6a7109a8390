"""`fleet:coordination` as the role's variables of all hosts: where the engine is, and its password apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from infra.config.schema import PREFIX, FleetSettings
from infra.errors import SettingsError

_KEY = f"{PREFIX}coordination"
_VARIABLES = (
    "ai_coordination_endpoint",
    "ai_coordination_user",
    "ai_coordination_password",
    "ai_coordination_ca_path",
    "ai_coordination_account",
    "ai_budget_shared",
)


def with_variables(settings: FleetSettings) -> FleetSettings:
    """The settings with the variables that its coordination stands for."""
    declared = settings.coordination
    if declared is None:
        return settings
    told = (
        declared.endpoint,
        declared.user,
        declared.password,
        declared.ca_path,
        declared.account or settings.stack,
        declared.shared_budgets,
    )
    variables: dict[str, Any] = {name: value for name, value in zip(_VARIABLES, told, strict=True) if value}
    return settings.model_copy(update={"vars": {**settings.vars, **variables}})


def errors(settings: FleetSettings, *, hidden: frozenset[str]) -> Iterator[SettingsError]:
    """A password in clear text or without its user, no account to share, variables beside it, budgets not to share.

    Args:
        settings: as they are written.
        hidden: values that stand for secret texts.
    """
    declared = settings.coordination
    if declared is None:
        if settings.vars.get("ai_budget_shared"):
            remedy = f"declare {_KEY} with sharedBudgets, or take it out"
            yield SettingsError(
                f"{PREFIX}vars.ai_budget_shared", "needs an engine that hosts share over", remedy
            )
        return
    if declared.shared_budgets and settings.vars.get("ai_budget_hard_stop") is False:
        remedy = f"take {PREFIX}vars.ai_budget_hard_stop out, or sharedBudgets"
        yield SettingsError(
            f"{_KEY}.sharedBudgets", "is of no use where a spent budget stops nothing", remedy
        )
    how = f"set it with 'pulumi config set --secret --path {_KEY}.password'"
    if declared.password is not None and declared.password not in hidden:
        yield SettingsError(
            f"{_KEY}.password", "is stored in clear text", f"{how}, and treat the old value as disclosed"
        )
    if declared.user is not None and declared.password is None:
        yield SettingsError(f"{_KEY}.password", "is missing", how)
    if declared.password is not None and declared.user is None:
        yield SettingsError(f"{_KEY}.user", "is missing", "name the engine's user whose password it is")
    if settings.account is None:
        yield SettingsError(
            _KEY, "shares a quota that is not declared", "declare fleet:account with rpm and tpm"
        )
    for name in _VARIABLES:
        if name in settings.vars:
            yield SettingsError(f"{PREFIX}vars.{name}", f"is set beside {_KEY}", "remove one of the two")
