"""A stack's configuration, read once and checked.

Whatever is wrong ends in one SettingsError that names the key and the remedy, before any resource is made.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.alias_generators import to_camel

from infra.errors import SettingsError
from infra.schema import (
    AccountSettings,
    ApiKeySecretSettings,
    Ec2Settings,
    FleetSettings,
    GateSettings,
    GroupSettings,
    HostSettings,
    JumpHostSettings,
    LocalSettings,
    SimulatorSettings,
    SshSettings,
)
from infra.secrets import is_key

PREFIX = "fleet:"
SECRET_KEYS = ("apiKey", "apiKeyNext", "apiKeys")


def load(
    config: Mapping[str, str],
    *,
    secret: Iterable[str],
    stack: str,
    variables: Mapping[str, Mapping[str, Any]],
    models: Iterable[str],
) -> FleetSettings:
    """Settings from Pulumi configuration.

    Args:
        config: full key (`fleet:apiKey`) to value as Pulumi gives it: text, or JSON for structured values.
        secret: full keys that are stored encrypted.
        stack: name of the stack.
        variables: role variables with their declared types; a group may set these and Ansible's own.
        models: models that have a list price; a group may not default to another unless it declares its cost.

    Raises:
        SettingsError: the first thing wrong, with its key and remedy.
    """
    own = {
        key.removeprefix(PREFIX): _value(key, text) for key, text in config.items() if key.startswith(PREFIX)
    }
    _check_secrets(own, {key.removeprefix(PREFIX) for key in secret})
    try:
        settings = FleetSettings.model_validate({"stack": stack, **own})
    except ValidationError as error:
        raise _as_settings_error(error) from None
    _check_references(settings)
    _check_key_sources(settings)
    _check_unique(settings)
    scopes = _variable_scopes(settings)
    _check_variables(scopes, variables)
    _check_models(scopes, frozenset(models))
    _check_local(settings)
    return settings


def _value(key: str, text: str) -> Any:
    bare = key.removeprefix(PREFIX)
    if bare not in _STRUCTURED:
        return text
    try:
        return json.loads(text)
    except ValueError:
        raise SettingsError(
            key, "is not a structure", f"write it as YAML below {key} in the stack's file"
        ) from None


def _is_structured(name: str) -> bool:
    """Whether a key holds JSON; a text does not, and neither does a number, which the model reads from its text."""
    annotation = FleetSettings.model_fields[name].annotation
    alternatives = get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)
    return not {str, int, SecretStr}.intersection(alternatives)


_STRUCTURED = frozenset(to_camel(name) for name in FleetSettings.model_fields if _is_structured(name))


def _check_secrets(own: Mapping[str, Any], secret: set[str]) -> None:
    for name in SECRET_KEYS:
        if name in own and name not in secret:
            raise SettingsError(
                PREFIX + name,
                "is stored in clear text",
                f"set it with 'pulumi config set --secret {name}', and treat the old value as disclosed",
            )
        values = own.get(name, ())
        for value in (
            values.values() if isinstance(values, dict) else [values] if isinstance(values, str) else ()
        ):
            _check_key(PREFIX + name, value)


def _check_key(name: str, value: object) -> None:
    if not is_key(value):
        raise SettingsError(
            name,
            "is not a key: one starts with hs_live_ or hs_test_, followed by letters, digits, _ or -",
            "copy it again from the provider's console, without quotes or spaces",
        )


def _as_settings_error(error: ValidationError) -> SettingsError:
    found = error.errors(include_url=False, include_input=False)
    first = found[0]
    path = ".".join(str(part) for part in first["loc"] if part != "[key]")
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    key = PREFIX + path
    match first["type"]:
        case "extra_forbidden":
            return SettingsError(
                key, f"unknown key{more}", _nearest(str(first["loc"][-1]), _known_keys(first["loc"][:-1]))
            )
        case "missing":
            return SettingsError(
                key,
                f"is missing{more}",
                f"set it in the stack's file, or with 'pulumi config set --path {path}'",
            )
        case _:
            reason = first["msg"].removeprefix("Value error, ")
            return SettingsError(key, reason + more, f"correct {key} in the stack's file")


def _nearest(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(names)}"


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    """Field names at a place in the configuration, to answer a misspelt key with the right one."""
    where = path[0] if path else ""
    depth = len(path)
    model: type[BaseModel] = FleetSettings
    if where == "groups":
        model = (Ec2Settings if path[2] == "ec2" else HostSettings) if depth > 2 else GroupSettings
    elif where == "jumpHosts":
        model = JumpHostSettings
    elif where in _SECTIONS:
        model = SimulatorSettings if path[-1] == "simulator" else _SECTIONS[str(where)]
    return [to_camel(name) for name in model.model_fields if name != "stack"]


_SECTIONS: Mapping[str, type[BaseModel]] = {
    "ssh": SshSettings,
    "local": LocalSettings,
    "account": AccountSettings,
    "gate": GateSettings,
    "apiKeySecret": ApiKeySecretSettings,
}


def _check_references(settings: FleetSettings) -> None:
    for name, group in settings.groups.items():
        key = f"{PREFIX}groups.{name}"
        _check_source(key, group)
        for child in group.children:
            if child not in settings.groups:
                raise SettingsError(
                    f"{key}.children", f"no group '{child}'", _nearest(child, settings.groups)
                )
        if name in _descendants(settings, name):
            raise SettingsError(f"{key}.children", "the group contains itself", "take the circle apart")
        for host_name, host in group.hosts.items():
            _check_jump(settings, f"{key}.hosts.{host_name}", host.jump or ())
        _check_jump(settings, key, group.jump)
    for name, jump_host in settings.jump_hosts.items():
        _check_jump(settings, f"{PREFIX}jumpHosts.{name}", jump_host.jump)
    for name in settings.api_keys:
        if name not in settings.groups:
            raise SettingsError(f"{PREFIX}apiKeys.{name}", "no such group", _nearest(name, settings.groups))


def _check_key_sources(settings: FleetSettings) -> None:
    for name, key in (("apiKey", settings.api_key), ("apiKeyNext", settings.api_key_next)):
        if settings.api_key_secret and key is not None:
            raise SettingsError(
                f"{PREFIX}apiKeySecret",
                f"is set beside {PREFIX}{name}",
                "keep one of the two: 'pulumi config rm'",
            )


def _check_source(key: str, group: GroupSettings) -> None:
    if group.children and (group.hosts or group.ec2):
        raise SettingsError(key, "has both hosts and children", "put the hosts into a group of their own")
    if group.source == "ec2" and group.ec2 is None:
        raise SettingsError(
            f"{key}.ec2", "is missing", "say which instances with ec2: {filters: {'tag:Role': […]}}"
        )
    if group.source != "ec2" and group.ec2 is not None:
        raise SettingsError(f"{key}.ec2", f"has no use with source: {group.source}", "set source: ec2")
    if group.source == "ec2" and group.hosts:
        raise SettingsError(
            f"{key}.hosts",
            "the hosts of this group come from EC2",
            "put other hosts into a group of their own",
        )
    if group.ec2 is not None and "instance-state-name" in group.ec2.filters:
        raise SettingsError(
            f"{key}.ec2.filters.instance-state-name", "states have a key of their own", "use ec2.states"
        )


def _descendants(settings: FleetSettings, name: str) -> set[str]:
    found: set[str] = set()
    todo = list(settings.groups[name].children)
    while todo:
        child = todo.pop()
        if child not in found and child in settings.groups:
            found.add(child)
            todo += settings.groups[child].children
    return found


def _check_jump(settings: FleetSettings, key: str, jump: Iterable[str]) -> None:
    for name in jump:
        if name not in settings.jump_hosts:
            raise SettingsError(
                f"{key}.jump", f"no jump host '{name}'", f"declare it under {PREFIX}jumpHosts"
            )


def _check_unique(settings: FleetSettings) -> None:
    names: dict[str, str] = {}
    addresses: dict[str, str] = {}
    declared = [
        (
            f"{PREFIX}groups.{group_name}.hosts.{host_name}",
            host_name,
            f"{host.address}:{host.port or group.port or 22}",
        )
        for group_name, group in settings.groups.items()
        for host_name, host in group.hosts.items()
    ] + [
        (f"{PREFIX}jumpHosts.{name}", name, f"{jump_host.address}:{jump_host.port}")
        for name, jump_host in settings.jump_hosts.items()
    ]
    for key, name, address in declared:
        if name in names:
            raise SettingsError(
                key, f"host '{name}' is declared twice, first as {names[name]}", "keep one of the two"
            )
        if address in addresses:
            raise SettingsError(
                f"{key}.address",
                f"{address} is declared twice, first by {addresses[address]}",
                "correct one of the two",
            )
        names[name] = addresses[address] = key


_Scopes = list[tuple[str, Mapping[str, Any]]]


def _variable_scopes(settings: FleetSettings) -> _Scopes:
    """Every place where a user may write Ansible variables, with its key."""
    scopes: _Scopes = [(f"{PREFIX}vars", settings.vars)]
    for group_name, group in settings.groups.items():
        key = f"{PREFIX}groups.{group_name}"
        scopes.append((f"{key}.vars", group.vars))
        scopes += [(f"{key}.hosts.{name}.vars", host.vars) for name, host in group.hosts.items()]
    return scopes


_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str, int, float),
    "path": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
}
_NEVER_HERE = ("ai_api_key", "ai_api_key_next")


def _check_variables(scopes: _Scopes, known: Mapping[str, Mapping[str, Any]]) -> None:
    for key, variables in scopes:
        for name, value in variables.items():
            where = f"{key}.{name}"
            if name in _NEVER_HERE:
                raise SettingsError(
                    where, "a key does not belong here", "use 'pulumi config set --secret apiKey'"
                )
            if name.startswith("ansible_") or name == "environment":
                continue
            if name not in known:
                raise SettingsError(where, "unknown variable", _nearest(name, known))
            wanted = str(known[name].get("type", "str"))
            if not isinstance(value, _TYPES.get(wanted, (object,))) or (
                isinstance(value, bool) and wanted != "bool"
            ):
                raise SettingsError(
                    where, f"is {type(value).__name__}, not {wanted}", f"write it as {wanted}"
                )


def _check_models(scopes: _Scopes, listed: frozenset[str]) -> None:
    known = listed | {model for _, variables in scopes for model in variables.get("ai_model_costs") or ()}
    for key, variables in scopes:
        for name in ("ai_model_default", "ai_fallback_model"):
            model = variables.get(name)
            if model is not None and model not in known:
                raise SettingsError(
                    f"{key}.{name}",
                    f"unknown model '{model}'",
                    f"{_nearest(str(model), known)} (a model of your own needs a price in ai_model_costs)",
                )


def _check_local(settings: FleetSettings) -> None:
    try:
        network = settings.local.bridge_interface.network
        settings.local.link_ends  # noqa: B018  (read for its check)
    except ValueError as error:
        raise SettingsError(
            f"{PREFIX}local", str(error), "write bridge as 10.88.0.1/24 and link as 198.18.0.0/30"
        ) from None
    for group_name, group in settings.groups.items():
        for name, host in group.hosts.items():
            key = f"{PREFIX}groups.{group_name}.hosts.{name}"
            if group.source != "local" and host.suite:
                raise SettingsError(
                    f"{key}.suite", "only local hosts have one", "take it out, or set source: local"
                )
            if group.source == "local" and not _is_in(host.address, network):
                raise SettingsError(
                    f"{key}.address", f"is not in the bridge's network {network}", "take another address"
                )


def _is_in(address: str, network: ipaddress.IPv4Network) -> bool:
    try:
        return ipaddress.IPv4Address(address) in network
    except ValueError:
        return False
