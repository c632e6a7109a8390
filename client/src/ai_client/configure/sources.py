"""Where the service reads its configuration and keys from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ai_client.configure import identity, personal
from ai_client.configure.launch import Launch
from ai_client.settings import (
    KEY_VARIABLES,
    ApiSettings,
    KeyMissingError,
    KeyPair,
    LoadedKey,
    Settings,
    TenantSettings,
    UpstreamSettings,
    load,
    of_bytes,
    read_key,
    read_keys,
)

#: Where the keys of other upstreams are, each in a file of its upstream's name.
KEYS_FOLDER = Path("/etc/ai-client/keys")
#: Names this host where `[coordination]` does not: a pod's node, since pods have new names each time.
COORDINATION_HOST = "AI_CLIENT_COORDINATION_HOST"
# Stands for a key where an upstream takes none; it is never sent.
NO_KEY = LoadedKey("no-key-is-needed", source="[api] needs_key")


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says, over what the file says; None leaves a value as it is.

    `key` signs instead of a key that is looked for; `tenants` come after those of the file.
    """

    base_url: str | None = None
    socket: Path | None = None
    port: int | None = None
    key: LoadedKey | None = None
    tenants: tuple[TenantSettings, ...] = ()

    def over(self, settings: Settings) -> Settings:
        """The settings with these in place."""
        gateway = replace(
            settings.gateway,
            socket=self.socket or settings.gateway.socket,
            port=settings.gateway.port if self.port is None else self.port,
        )
        api = replace(settings.api, base_url=self.base_url or settings.api.base_url)
        return replace(settings, api=api, gateway=gateway, tenants=settings.tenants + self.tenants)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the service reads its configuration and key from, at its start and at each reload.

    Without a `config_path` it is the configuration of somebody who has none: `configure.personal`.
    """

    config_path: Path | None
    key_file: Path | None
    environment: Mapping[str, str]
    launch: Launch
    overrides: Overrides = Overrides()
    tokens: identity.Tokens = field(default_factory=identity.Tokens, compare=False)

    def read(self, data: bytes | None = None) -> tuple[Settings, KeyPair]:
        """Both, or ConfigError or KeyMissingError. `data`: what the file holds, where it has been read."""
        path = self.config_path
        if path is None:
            settings = personal.settings(self.environment)
        else:
            settings = load(path) if data is None else of_bytes(data, path=path)
        settings = _named(self.overrides.over(settings), self.environment)
        return settings, self.keys_for(settings)

    def keys_for(self, settings: Settings) -> KeyPair:
        """The keys of `[api]` and of the other upstreams, or KeyMissingError."""
        proxy_url = settings.security.proxy_url or ""
        keys = self.read_keys(settings.api, proxy_url=proxy_url)
        others = {each.name: self._keys_of(each, proxy_url) for each in settings.upstreams}
        return replace(keys, others=others)

    def read_keys(self, api: ApiSettings | None = None, *, proxy_url: str = "") -> KeyPair:
        """The keys, or KeyMissingError; `api` says what they look like, and whether there are any."""
        if self.overrides.key is not None:
            return KeyPair(self.overrides.key, None)
        if api is None:
            return read_keys(key_file=self.key_file, environment=self.environment)
        if not api.needs_key:
            return KeyPair(NO_KEY, None)
        if api.key_from in identity.KINDS:
            return KeyPair(self.tokens.token(api.key_from, self.environment, proxy_url=proxy_url), None)
        path = self.key_file
        if api.key_from == "credential":
            path = credential("", self.environment)
        return read_keys(key_file=path, environment=self.environment, prefixes=api.known_prefixes)

    def _keys_of(self, upstream: UpstreamSettings, proxy_url: str = "") -> KeyPair:
        return keys_of(upstream, self.environment, tokens=self.tokens, proxy_url=proxy_url)

    def fresh_key(
        self, upstream: UpstreamSettings | None = None, *, api: ApiSettings | None = None
    ) -> str | None:
        """The key as it is now, for a client whose key was refused; None where there is none.

        Of a token it is the one that is held: who is asked for another one answers too slowly for a request.
        """
        kept_in = upstream or api
        if kept_in is not None and kept_in.key_from in identity.KINDS:
            held = self.tokens.held(kept_in.key_from)
            return None if held is None else held.secret
        try:
            keys = self.read_keys(api) if upstream is None else self._keys_of(upstream)
        except KeyMissingError:
            return None
        return keys.current.secret


def _named(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """The settings with this host's name among those that share a quota, where its file is that of many hosts."""
    given = environment.get(COORDINATION_HOST, "").strip()
    if not given or settings.coordination.host:
        return settings
    return replace(settings, coordination=replace(settings.coordination, host=given))


def key_of(api: ApiSettings | None, *, key_file: Path | None, environment: Mapping[str, str]) -> LoadedKey:
    """The key of `[api]` for a command beside the service. Raises KeyMissingError.

    One that is given by the environment comes first: a key may be tried that is laid down nowhere.
    """
    if (
        api is None
        or api.key_from == "file"
        or (key_file is None and any(map(environment.get, KEY_VARIABLES)))
    ):
        return read_key(key_file=key_file, environment=environment)
    if api.key_from in identity.KINDS:
        return identity.Tokens(pauses_s=()).token(api.key_from, environment)
    return read_key(key_file=credential("", environment), environment=environment)


def keys_of(
    upstream: UpstreamSettings,
    environment: Mapping[str, str],
    *,
    tokens: identity.Tokens | None = None,
    proxy_url: str = "",
) -> KeyPair:
    """The keys of one of the other upstreams, or KeyMissingError. `tokens` keeps access tokens from call to call."""
    if not upstream.needs_key:
        return KeyPair(NO_KEY, None)
    variable = "AI_CLIENT_API_KEY_" + re.sub(r"[^A-Z0-9]", "_", upstream.name.upper())
    path = upstream.key_file
    try:
        if upstream.key_from in identity.KINDS:
            held = tokens or identity.Tokens(pauses_s=())
            return KeyPair(held.token(upstream.key_from, environment, proxy_url=proxy_url), None)
        if upstream.key_from == "credential":
            path = credential(upstream.name, environment)
        return read_keys(
            key_file=path,
            environment=environment,
            prefixes=upstream.key_prefixes,
            variables=(variable,),
            default=KEYS_FOLDER / upstream.name,
        )
    except KeyMissingError as exc:
        message = f"[upstream {upstream.name}]: {exc}"
        raise KeyMissingError(message, is_absent=exc.is_absent) from exc


def credential(upstream: str, environment: Mapping[str, str]) -> Path:
    """The file of a credential that systemd handed to this process. Raises KeyMissingError."""
    folder = environment.get("CREDENTIALS_DIRECTORY")
    name = f"ai-client.{upstream}.key" if upstream else "ai-client.key"
    if not folder:
        reason = f"key_from = credential: systemd handed this process no credentials ({name} is looked for)"
        remedy = "give the unit LoadCredential=, as the role does, and ask the running service instead"
        raise KeyMissingError(f"{reason}; {remedy}", is_absent=True)
    return Path(folder) / name
