"""`fleet:upstreams` as the role's variables of all hosts: what a host may read, and the keys apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from infra.config.schema import PREFIX, FleetSettings, UpstreamSettings
from infra.errors import SettingsError

_VARIABLES = ("ai_upstreams", "ai_upstream_keys", "ai_upstream_keys_next")
_KEYS = {"api_key", "api_key_next", "key_source"}


def with_variables(settings: FleetSettings) -> FleetSettings:
    """The settings with the variables that its upstreams stand for."""
    if not settings.upstreams:
        return settings
    shown, keys, following = {}, {}, {}
    for name, upstream in settings.upstreams.items():
        shown[name] = _shown(upstream)
        if upstream.api_key is not None:
            keys[name] = upstream.api_key
        if upstream.api_key_next is not None:
            following[name] = upstream.api_key_next
    variables: dict[str, Any] = dict(zip(_VARIABLES, (shown, keys, following), strict=True))
    return settings.model_copy(update={"vars": {**settings.vars, **variables}})


def _shown(upstream: UpstreamSettings) -> dict[str, Any]:
    """What the configuration file has of it; what is as usual is left out."""
    return upstream.model_dump(exclude=_KEYS, exclude_defaults=True)


def errors(settings: FleetSettings, *, hidden: frozenset[str]) -> Iterator[SettingsError]:
    """Keys in clear text or missing, and variables that stand beside `fleet:upstreams`.

    Args:
        settings: as they are written.
        hidden: values that stand for secret texts.
    """
    for name, upstream in settings.upstreams.items():
        where = f"{PREFIX}upstreams.{name}"
        for key, value in (("apiKey", upstream.api_key), ("apiKeyNext", upstream.api_key_next)):
            if value is not None and value not in hidden:
                command = f"pulumi config set --secret --path {where}.{key}"
                remedy = f"set it with '{command}', and treat the old value as disclosed"
                yield SettingsError(f"{where}.{key}", "is stored in clear text", remedy)
            if value is not None and upstream.key_source is not None:
                reason = f"is set beside {where}.{key}"
                yield SettingsError(f"{where}.keySource", reason, "keep one of the two")
        is_kept = upstream.api_key is not None or upstream.key_source is not None
        if is_kept and upstream.key_from != "file":
            reason = f"is {upstream.key_from}, and a key is declared beside it"
            yield SettingsError(f"{where}.keyFrom", reason, "keep one of the two")
        if upstream.needs_key and not is_kept and upstream.key_from == "file":
            remedy = (
                f"set it with 'pulumi config set --secret --path {where}.apiKey', say where it is kept with "
                "keySource, or set needsKey to false"
            )
            yield SettingsError(f"{where}.apiKey", "is missing", remedy)
    if settings.upstreams:
        for name in _VARIABLES:
            if name in settings.vars:
                yield SettingsError(
                    f"{PREFIX}vars.{name}", "is set beside fleet:upstreams", "remove one of the two"
                )
