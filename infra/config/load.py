"""A stack's configuration, read once and checked.

Whatever is wrong ends in one SettingsError that names each key and its remedy, before any resource is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.alias_generators import to_camel

from infra import secret_texts
from infra.config import checks, coordination, hosts_files, secret_values, upstreams
from infra.config.names import nearest
from infra.config.schema import PREFIX, FleetSettings
from infra.config.secret_values import Hider, Path
from infra.config.upstream_key import declared_prefixes, form_of, is_key, scopes_of
from infra.errors import SettingsError, raise_all

SECRET_KEYS = ("apiKey", "apiKeyNext", "apiKeys")
_UNKNOWN: Mapping[str, tuple[Path, ...]] = {}


def load_settings(
    config: Mapping[str, str],
    *,
    secret: Iterable[str],
    stack: str,
    variables: Mapping[str, Mapping[str, Any]],
    models: Iterable[str],
    secret_paths: Mapping[str, tuple[Path, ...]] = _UNKNOWN,
) -> FleetSettings:
    """Settings from Pulumi configuration.

    Args:
        config: full key (`fleet:apiKey`) to value as Pulumi gives it: text, or JSON for structured values.
        secret: full keys that are stored encrypted, in whole or in part.
        stack: name of the stack.
        variables: role variables with their declared types; a group may set these, Ansible's and its own.
        models: models that have a list price; a group may not default to another unless it declares its cost.
        secret_paths: where encrypted values are below a full key, as far as that is known.

    Raises:
        SettingsError: everything that is wrong, each with its key and remedy.
    """
    hider = Hider()
    own, errors, hidden_texts = _read(config, secret=secret, secret_paths=secret_paths, hider=hider)
    errors += hosts_files.put_in(own)
    settings, wrong, is_whole = _validated({**own, "stack": stack})
    errors += wrong
    if settings is None:
        raise_all(errors, hidden=hidden_texts)
        raise AssertionError("a configuration without settings has an error")
    settings.keep_secrets(hider.values)
    hidden = frozenset(map(secret_texts.expression, hider.values))
    errors += [*upstreams.errors(settings, hidden=hidden), *coordination.errors(settings, hidden=hidden)]
    settings = coordination.with_variables(upstreams.with_variables(settings))
    errors += _semantic_errors(settings, variables, frozenset(models), is_whole=is_whole)
    raise_all(errors, hidden=hidden_texts)
    return settings


def _read(
    config: Mapping[str, str],
    *,
    secret: Iterable[str],
    secret_paths: Mapping[str, tuple[Path, ...]],
    hider: Hider,
) -> tuple[dict[str, Any], list[SettingsError], set[str]]:
    """The values of the configuration, encrypted ones hidden; what is wrong with how they are stored; secret texts."""
    hidden_keys = {key.removeprefix(PREFIX) for key in secret if key.startswith(PREFIX)}
    errors: list[SettingsError] = []
    own = _values(config, errors)
    errors += _secret_errors(own, hidden_keys)
    texts: set[str] = set()
    for key in sorted(hidden_keys & own.keys()):
        paths = secret_paths.get(PREFIX + key) or None
        is_holder = key in secret_values.HOLDERS
        texts |= set(secret_values.texts_at(own[key], paths or (() if is_holder else ((),))))
        if is_holder:
            own[key] = hider.hide(key, own[key], paths)
    texts |= {text.get_secret_value() for text in hider.values.values()}
    return own, [*errors, *hider.errors], texts


def _semantic_errors(
    settings: FleetSettings,
    variables: Mapping[str, Mapping[str, Any]],
    models: frozenset[str],
    *,
    is_whole: bool,
) -> Iterator[SettingsError]:
    """What is wrong between values; names are not looked for where something that has one was refused."""
    if is_whole:
        yield from checks.references(settings)
    yield from checks.key_sources(settings)
    yield from checks.probe_source(settings)
    yield from checks.uniqueness(settings)
    scopes = checks.variable_scopes(settings)
    secrets = settings.secrets
    yield from checks.variables(scopes, variables, frozenset(map(secret_texts.expression, secrets)))
    yield from checks.models([(key, secret_texts.reveal(own, secrets)) for key, own in scopes], models)
    yield from checks.precedence(settings)
    yield from checks.local_network(settings)


def _values(config: Mapping[str, str], errors: list[SettingsError]) -> dict[str, Any]:
    own: dict[str, Any] = {}
    for key, text in config.items():
        if key.startswith(PREFIX):
            try:
                own[key.removeprefix(PREFIX)] = _value(key, text)
            except SettingsError as error:
                errors.append(error)
    return own


def _value(key: str, text: str) -> Any:
    bare = key.removeprefix(PREFIX)
    if bare not in _STRUCTURED or (bare, text) == ("probe", "registry"):
        return text
    remedy = f"write it as YAML below {key} in the stack's file"
    try:
        return json.loads(text)
    except ValueError:
        raise SettingsError(key, "is not a structure", remedy) from None


def _is_structured(name: str) -> bool:
    """Whether a key holds JSON; a text does not, and neither does a number, which the model reads from its text."""
    annotation = FleetSettings.model_fields[name].annotation
    alternatives = get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)
    return not {str, int, SecretStr}.intersection(alternatives)


_STRUCTURED = frozenset(to_camel(name) for name in FleetSettings.model_fields if _is_structured(name))


def _secret_errors(own: Mapping[str, Any], secret: set[str]) -> Iterator[SettingsError]:
    prefixes = declared_prefixes(*scopes_of(own))
    for name in SECRET_KEYS:
        if name in own and name not in secret:
            yield SettingsError(
                PREFIX + name,
                "is stored in clear text",
                f"set it with 'pulumi config set --secret {name}', and treat the old value as disclosed",
            )
        held = own.get(name, ())
        values = held.values() if isinstance(held, dict) else [held] if isinstance(held, str) else ()
        if "" in values:
            yield SettingsError(
                PREFIX + name,
                "is empty",
                f"set it with 'pulumi config set --secret {name}', which asks for the key",
            )
        elif not all(is_key(value, prefixes=prefixes) for value in values):
            yield SettingsError(
                PREFIX + name,
                f"is not a key: {form_of(prefixes)}",
                "copy it again from the provider's console, without quotes or spaces",
            )
    yield from secret_values.cannot_hide((secret & own.keys()) - secret_values.HOLDERS - set(SECRET_KEYS))


def _validated(raw: dict[str, Any]) -> tuple[FleetSettings | None, list[SettingsError], bool]:
    """The settings, what is wrong with single values, and whether nothing that has a name was refused.

    A wrong value is taken out and the rest looked at, so that every mistake is found in one go.
    """
    errors: list[SettingsError] = []
    is_whole = True
    for _ in range(_ROUNDS):
        try:
            return FleetSettings.model_validate(raw), errors, is_whole
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
        errors += [_as_settings_error(entry["type"], entry["loc"], entry["msg"]) for entry in found]
        for entry in found:
            taken = _take_out(raw, entry["loc"], of_parent=entry["type"] == "missing")
            if taken is None:
                return None, errors, False
            is_whole = is_whole and not taken
    return None, errors, False


# A value that is taken out can show another mistake beside it, not endlessly many.
_ROUNDS = 20


def _take_out(raw: dict[str, Any], loc: tuple[int | str, ...], *, of_parent: bool) -> bool | None:
    """Takes a value out: whether it was an entry with a name; None where the rest would make no sense without it."""
    path = [part for part in loc if part != "[key]"]
    path = path[:-1] if of_parent else path
    place: Any = raw
    trail: list[tuple[Any, int | str]] = []
    for part in path:
        if not (isinstance(place, dict) and part in place):
            break
        trail.append((place, part))
        place = place[part]
    if not trail or (path[0] in _NEEDED and len(trail) == 1):
        return None
    holder, last = trail[-1]
    del holder[last]
    names = [part for _, part in trail]
    return (len(names) == 2 and names[0] in ("groups", "jumpHosts")) or (
        len(names) == 4 and names[2] == "hosts"
    )


_NEEDED = frozenset({"stack", "environment", "groups"})


def _as_settings_error(kind: str, loc: tuple[int | str, ...], message: str) -> SettingsError:
    path = ".".join(str(part) for part in loc if part != "[key]")
    key = PREFIX + path
    match kind:
        case "extra_forbidden":
            return SettingsError(key, "unknown key", nearest(str(loc[-1]), _known_keys(loc[:-1])))
        case "missing":
            remedy = f"set it in the stack's file, or with 'pulumi config set --path {path}'"
            return SettingsError(key, "is missing", remedy)
        case _:
            reason = message.removeprefix("Value error, ")
            return SettingsError(key, reason, f"correct {key} in the stack's file")


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    """Field names at a place in the configuration, to answer a misspelt key with the right one."""
    model: type[BaseModel] = FleetSettings
    parts = iter(path)
    for part in parts:
        annotation = next((f.annotation for f in model.model_fields.values() if f.alias == part), None)
        inner = _model_in(annotation)
        if inner is None:
            break
        if get_origin(annotation) is dict:
            next(parts, None)
        model = inner
    return [to_camel(name) for name in model.model_fields if name != "stack"]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, itself or by name; None where it holds none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
