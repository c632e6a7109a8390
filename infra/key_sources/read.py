"""The settings of a stack with the keys that are kept elsewhere."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from infra.config import secret_values
from infra.config.key_source import KeySourceSettings
from infra.config.schema import PREFIX, FleetSettings, UpstreamSettings
from infra.config.upstream_key import declared_prefixes, form_of, is_key
from infra.key_sources import programs, secrets_manager, vault
from infra.key_sources.held import Held, Surroundings, Wanted
from infra.project_files import PROJECT
from infra.secret_texts import expression

# As the client takes them: every provider has a form of its own.
_ANY_KEY = re.compile(r"[\x21\x23-\x26\x28-\x7e]{8,8192}")


def with_keys(
    settings: FleetSettings, *, environment: Mapping[str, str] | None = None, project: Path = PROJECT
) -> FleetSettings:
    """The settings with the upstream keys of every source that they name.

    Args:
        settings: the stack's settings.
        environment: variables that Vault's address and token are looked for in; this process's own where None.
        project: folder that files and commands are relative to.

    Raises:
        KeySourceError: a key could not be read, or is not one.
    """
    around = Surroundings(os.environ if environment is None else environment, project)
    named = settings.source_of_the_key
    if named is not None:
        culprit, source = named
        prefixes = declared_prefixes(settings.vars, *(group.vars for group in settings.groups.values()))
        held = read(source, Wanted(culprit, partial(is_key, prefixes=prefixes), form_of(prefixes)), around)
        settings = settings.model_copy(update={"api_key": held.key, "api_key_next": held.following})
    for name, upstream in settings.upstreams.items():
        if upstream.key_source is not None:
            settings = _with_key_of(
                settings, name, read(upstream.key_source, _wanted_of(name, upstream), around)
            )
    return settings


def read(source: KeySourceSettings, wanted: Wanted, around: Surroundings) -> Held:
    """The keys that a source holds, whichever kind it is.

    Raises:
        KeySourceError: it could not be read, or holds no key.
    """
    kind, chosen = source.chosen
    return _READERS[kind](chosen, wanted, around)


_READERS: Mapping[str, Callable[[Any, Wanted, Surroundings], Held]] = {
    "aws": secrets_manager.read,
    "vault": vault.read,
    "command": programs.read_command,
    "sops": programs.read_sops,
    "age": programs.read_age,
}


def _wanted_of(name: str, upstream: UpstreamSettings) -> Wanted:
    prefixes = tuple(prefix.strip() for prefix in upstream.key_prefix.split(",") if prefix.strip())
    form = "one has 8 or more letters, digits and signs, without spaces or quotes"
    if prefixes:
        form += f", and starts with {' or '.join(prefixes)}"
    return Wanted(f"{PREFIX}upstreams.{name}.keySource", _begins_with(prefixes), form)


def _begins_with(prefixes: tuple[str, ...]) -> Callable[[object], bool]:
    def is_one(value: object) -> bool:
        has_form = isinstance(value, str) and bool(_ANY_KEY.fullmatch(value))
        return has_form and (not prefixes or str(value).startswith(prefixes))

    return is_one


def _with_key_of(settings: FleetSettings, upstream: str, held: Held) -> FleetSettings:
    """The settings with an upstream's keys among the variables, where expressions stand for them."""
    variables = dict(settings.vars)
    for variable, field, key in (
        ("ai_upstream_keys", "apiKey", held.key),
        ("ai_upstream_keys_next", "apiKeyNext", held.following),
    ):
        if key is not None:
            name = secret_values.variable_name(("upstreams", upstream, field))
            settings.keep_secrets({name: key})
            variables[variable] = {**variables.get(variable, {}), upstream: expression(name)}
    return settings.model_copy(update={"vars": variables})
