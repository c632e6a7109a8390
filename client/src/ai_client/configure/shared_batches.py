"""From settings to the batches that hosts share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ai_client.configure import identity
from ai_client.configure.coordination import account_of, endpoint_of
from ai_client.configure.sources import credential
from ai_client.coordination.batch_link import BatchKeys, BatchLink
from ai_client.coordination.link import EngineLink
from ai_client.settings import ConfigError, KeyMissingError, KeyPair, Settings, read_keys
from ai_client.settings.ini import Problem

# A call moves some megabytes at most.
_ANSWER_S = 10.0


def batch_link(settings: Settings) -> BatchLink:
    """The connection to the engine. Raises ConfigError where there is none, or its password can't be read."""
    if settings.coordination.endpoint is None:
        remedy = "name the Valkey or Redis that hosts share (docs/how-to/coordination.md)"
        problem = Problem(
            None, "coordination", "endpoint", "is not set, and hosts share batches through it", remedy
        )
        raise ConfigError(path="the configuration", problems=(problem,))
    link = EngineLink(endpoint_of(settings), timeout_s=_ANSWER_S)
    return BatchLink(link, BatchKeys(account_of(settings)))


def renew(link: BatchLink, settings: Settings) -> None:
    """Lets it use the password as it is now. Raises ConfigError where that can't be read."""
    link.renew(endpoint_of(settings))


def sealing_keys(settings: Settings, *, key_file: Path | None, environment: Mapping[str, str]) -> KeyPair:
    """The provider's keys, which batches are sealed with. Raises KeyMissingError where hosts have none in common."""
    api = settings.api
    if not api.needs_key or api.key_from in identity.KINDS:
        why = "key_from is a token" if api.needs_key else "needs_key is off"
        reason = (
            f"batches are sealed with the provider's key, and there is none that hosts share ([api] {why})"
        )
        raise KeyMissingError(f"{reason}; use `ai-client batch run` on one host")
    path = key_file
    if api.key_from == "credential" and key_file is None:
        path = credential("", environment)
    return read_keys(key_file=path, environment=environment, prefixes=api.known_prefixes)
