"""What commands know of the host that they run on: its configuration, or that of somebody who has none."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ai_client.settings import ConfigError, Settings, load

DEFAULT_CONFIG = Path("/etc/ai-client/ai-client.conf")
DEFAULT_SOCKET = Path("/run/ai-client/gateway.sock")
CONFIG_VARIABLE = "AI_CLIENT_CONFIG"


def config_of(options: argparse.Namespace) -> Path | None:
    """The configuration file: as told, else the default one, else None where that is not there."""
    chosen = options.config or os.environ.get(CONFIG_VARIABLE)
    if chosen:
        return Path(chosen)
    return DEFAULT_CONFIG if is_there(DEFAULT_CONFIG) else None


def settings_of(options: argparse.Namespace) -> Settings:
    """What the file says, or the defaults for a user without one. Raises ConfigError where a file can't be used."""
    path = config_of(options)
    if path is not None:
        return load(path)
    from ai_client.configure import personal  # noqa: PLC0415  hosts that were set up don't need it

    return personal.settings(os.environ)


def usable_settings(options: argparse.Namespace) -> Settings:
    """As `settings_of`; a default file that this user can't read or that is wrong is the service's concern.

    One that was named is theirs: nothing else is used in its stead. Raises ConfigError where it can't be used.
    """
    try:
        return settings_of(options)
    except ConfigError:
        if _is_named(options):
            raise
        return Settings()


def _is_named(options: argparse.Namespace) -> bool:
    return bool(options.config or os.environ.get(CONFIG_VARIABLE))


def socket_of(options: argparse.Namespace) -> Path:
    """The gateway's socket: as told, else as configured; without a configuration, the service's where there is one.

    Raises ConfigError where a configuration that was named can't be used.
    """
    if options.socket is not None:
        return Path(options.socket)
    if config_of(options) is None and is_there(DEFAULT_SOCKET):
        return DEFAULT_SOCKET
    return usable_settings(options).gateway.socket


def is_there(path: Path) -> bool:
    """Whether a file is there; where its folder may not be looked into it may be, and opening it says more."""
    try:
        return path.exists()
    except PermissionError:
        return True
