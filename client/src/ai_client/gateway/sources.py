"""Where the service reads its configuration and keys from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ai_client.gateway.launch import Launch
from ai_client.settings import KeyMissingError, KeyPair, Settings, load, read_keys


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the service reads its configuration and key from, at its start and at each reload."""

    config_path: Path
    key_file: Path | None
    environment: Mapping[str, str]
    launch: Launch

    def read(self) -> tuple[Settings, KeyPair]:
        """Both, or ConfigError or KeyMissingError."""
        settings = load(self.config_path)
        return settings, self.read_keys()

    def read_keys(self) -> KeyPair:
        """The keys, or KeyMissingError."""
        return read_keys(key_file=self.key_file, environment=self.environment)

    def fresh_key(self) -> str | None:
        """The key as it is now, for a client whose key was refused; None where there is none."""
        try:
            return self.read_keys().current.secret
        except KeyMissingError:
            return None
