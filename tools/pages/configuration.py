"""The keys of a stack's file, from the models that read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tools.pages import markdown, stack_schema

_INTRO = """\
The keys of `Pulumi.<stack>.yaml`, all below `config:`. A wrong key or value stops the program before it creates any
resource; the error names the key and the remedy. Editors that read YAML schemas complete and check keys with
[`stack.schema.json`](stack.schema.json). Set secret keys with `pulumi config set --secret`.

Settings of the service on the hosts are [role variables](role-variables.md), under any `vars`."""

# Where each model stands; a model in two places is described once.
_PLACES: Mapping[str, str] = {
    "GroupSettings": "fleet:groups.GROUP",
    "HostSettings": "fleet:groups.GROUP.hosts.HOST",
    "Ec2Settings": "fleet:groups.GROUP.ec2",
    "JumpHostSettings": "fleet:jumpHosts.HOST",
    "SshSettings": "fleet:ssh",
    "AccountSettings": "fleet:account",
    "ModelLimitSettings": "fleet:account.models.MODEL",
    "GateSettings": "fleet:gate",
    "UpstreamSettings": "fleet:upstreams.NAME",
    "KeySourceSettings": "fleet:keySource",
    "ApiKeySecretSettings": "fleet:keySource.aws",
    "VaultSettings": "fleet:keySource.vault",
    "VaultLoginSettings": "fleet:keySource.vault.login",
    "CommandSettings": "fleet:keySource.command",
    "SopsSettings": "fleet:keySource.sops",
    "AgeSettings": "fleet:keySource.age",
    "CoordinationSettings": "fleet:coordination",
    "LocalSettings": "fleet:local",
    "SimulatorSettings": "fleet:local.simulator",
}

# Where a model stands as well, as it did in the first version.
_ALSO: Mapping[str, str] = {"ApiKeySecretSettings": "fleet:apiKeySecret"}


def text() -> str:
    """The page."""
    schema = stack_schema.schema()
    config = schema["properties"]["config"]
    models = {name: model for name, model in schema["$defs"].items() if name not in {"Secret", "Variables"}}
    ordered = sorted(models, key=lambda name: [*_PLACES, name].index(name))
    sections = [_section(_PLACES.get(name, name), models[name]) for name in ordered]
    sections += [_section(place, models[name]) for name, place in _ALSO.items()]
    return markdown.page("Configuration", _INTRO, _table(config), *sections)


def _section(place: str, model: Mapping[str, Any]) -> str:
    return f"## `{place}`\n\n{model['description']}\n\n{_table(model)}"


def _table(model: Mapping[str, Any]) -> str:
    return markdown.table(("key", "value", "default", "meaning"), _rows(model))


def _rows(model: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for name, key in model["properties"].items():
        default = "" if "$ref" in key else markdown.code(key.get("default"))
        default = "**required**" if name in model.get("required", ()) else default
        yield f"`{name}`", kind(key), default, key.get("description", "")


def kind(key: Mapping[str, Any]) -> str:
    """What a key may hold, in words."""
    if "$ref" in key:
        return {"Secret": "secret", "Variables": "variables"}.get(_last(key["$ref"]), "see below")
    if "anyOf" in key:
        return " or ".join(dict.fromkeys(kind(each) for each in key["anyOf"]))
    if "enum" in key:
        return ", ".join(markdown.code(value) for value in key["enum"] if not isinstance(value, bool))
    if key.get("type") == "array":
        return f"list of {kind(key['items'])}"
    if key.get("type") == "object":
        inner = key.get("additionalProperties")
        return f"by name: {kind(inner)}" if isinstance(inner, Mapping) else "mapping"
    return _scalar(key)


def _scalar(key: Mapping[str, Any]) -> str:
    named = key.get("type", "")
    name = {"integer": "number", "string": "text"}.get(
        named if isinstance(named, str) else named[0], str(named)
    )
    least, most = key.get("minimum"), key.get("maximum")
    if least is not None and most is not None:
        return f"{name}, {least} to {most}"
    return f"{name}, {least} or more" if least is not None else name


def _last(reference: str) -> str:
    return reference.rsplit("/", 1)[-1]
