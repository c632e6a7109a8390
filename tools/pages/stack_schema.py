"""JSON schema of a stack's file (`Pulumi.<stack>.yaml`), from the models of the configuration and the role's variables.

Editors complete and check by it; the program itself checks more (names, addresses, what one key says of another).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra import project_files
from infra.config import descriptions, key_source
from infra.config import schema as infra_schema
from infra.config.schema import PREFIX, FleetSettings
from tools.pages import markdown

Schema = dict[str, Any]

_NOT_KEYS = frozenset({"stack"})
_SECRETS = frozenset({"apiKey", "apiKeyNext", "password"})
_SECRETS_BY_GROUP = "apiKeys"
_NEVER = frozenset({"ai_api_key", "ai_api_key_next"})

_TYPES: Mapping[str, Schema] = {
    "str": {"type": ["string", "number"]},
    "path": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "list": {"type": "array"},
    "dict": {"type": "object"},
}


def schema() -> Schema:
    """The whole schema."""
    models = FleetSettings.model_json_schema(by_alias=True)
    definitions = {name: _model(name, model) for name, model in models.pop("$defs").items()}
    fleet = _model("FleetSettings", models)
    keys = {PREFIX + name: _top(name, key) for name, key in fleet["properties"].items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Stack of a fleet",
        "description": "Pulumi.<stack>.yaml of this project.",
        "type": "object",
        "required": ["config"],
        "additionalProperties": False,
        "properties": {
            "config": {
                "type": "object",
                "required": sorted(PREFIX + name for name in fleet["required"]),
                "properties": keys,
                "patternProperties": {"^(?!fleet:)[^:]+:.": {}},
                "additionalProperties": False,
            },
            "encryptionsalt": {"type": "string", "description": "Written by Pulumi."},
            "encryptedkey": {"type": "string", "description": "Written by Pulumi."},
            "secretsprovider": {"type": "string", "description": "Who encrypts the stack's secrets."},
            "environment": {"description": "Pulumi ESC environments."},
        },
        "$defs": {**definitions, "Secret": _secret(), "Variables": _variables()},
    }


def described(model: str, alias: str, key: Mapping[str, Any]) -> str:
    """What a key means; the schema's own words where it has some."""
    fields = {to.alias: name for name, to in _fields(model).items()}
    sidecar = descriptions.DESCRIPTIONS.get(f"{model}.{fields.get(alias, alias)}", "")
    return str(key.get("description") or sidecar)


def _fields(model: str) -> Mapping[str, Any]:
    holder = key_source if hasattr(key_source, model) else infra_schema
    fields: Mapping[str, Any] = getattr(holder, model).model_fields
    return fields


def _model(name: str, model: Schema) -> Schema:
    keys = {}
    for alias, key in model["properties"].items():
        if alias not in _NOT_KEYS:
            text = described(name, alias, key)
            keys[alias] = _key(alias, key) | ({"description": text} if text else {})
    required = [alias for alias in model.get("required", ()) if alias in keys]
    return {
        "description": _in_camel_case(name, model.get("description", "")),
        "type": "object",
        "properties": keys,
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _in_camel_case(model: str, text: str) -> str:
    """A description of the code's, with its field names as users write them."""
    for name, field in _fields(model).items():
        text = text.replace(f"`{name}`", f"`{field.alias}`")
    return text


def _key(alias: str, key: Schema) -> Schema:
    if alias == "vars":
        return {"$ref": "#/$defs/Variables"}
    if alias in _SECRETS:
        return {"$ref": "#/$defs/Secret"}
    if alias == _SECRETS_BY_GROUP:
        return {"anyOf": [{"$ref": "#/$defs/Secret"}, _of_each({"$ref": "#/$defs/Secret"})]}
    return _plain(key)


def _plain(key: Schema) -> Schema:
    """A key without pydantic's titles; one that may be left out is not written as null."""
    found = {name: value for name, value in key.items() if name != "title"}
    if "anyOf" in found:
        kinds = [kind for kind in found.pop("anyOf") if kind != {"type": "null"}]
        found |= _plain(kinds[0]) if len(kinds) == 1 else {"anyOf": [_plain(kind) for kind in kinds]}
    if found.get("default", 0) is None:
        del found["default"]
    return found


def _of_each(value: Schema) -> Schema:
    return {"type": "object", "additionalProperties": value}


def _top(name: str, key: Schema) -> Schema:
    """A key as `pulumi config set` may have written it: numbers and truth values as texts."""
    if key.get("type") == "integer":
        return {**key, "type": ["integer", "string"], "pattern": "^[0-9]+$"}
    if key.get("type") == "boolean":
        return {**key, "type": ["boolean", "string"], "enum": [True, False, "true", "false"]}
    if any(each.get("type") == "boolean" for each in key.get("anyOf", ())):
        return {**key, "anyOf": [_top(name, each) for each in key["anyOf"]]}
    return key


def _secret() -> Schema:
    return {
        "description": "A value that Pulumi has encrypted: `pulumi config set --secret`.",
        "type": "object",
        "required": ["secure"],
        "properties": {"secure": {"type": "string"}},
        "additionalProperties": False,
    }


def _variables() -> Schema:
    known = {
        name: _variable(spec) for name, spec in project_files.role_variables().items() if name not in _NEVER
    }
    return {
        "description": "Variables of the role, and Ansible's own (`ansible_…`).",
        "type": "object",
        "properties": {**known, "environment": {"type": "string", "description": "Means `ai_environment`."}},
        "patternProperties": {"^ansible_": {}},
        "additionalProperties": False,
    }


def _variable(spec: Mapping[str, Any]) -> Schema:
    text = markdown.from_ansible(str(spec.get("description", ""))).strip()
    found = {**_TYPES[str(spec.get("type", "str"))], "description": text}
    if "choices" in spec:
        found["enum"] = list(spec["choices"])
    if found["type"] == "array" and "elements" in spec:
        found["items"] = dict(_TYPES[str(spec["elements"])])
    return found
