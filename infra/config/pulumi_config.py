"""The stack's settings from Pulumi's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import yaml
from pulumi.runtime import config as pulumi_config

from infra import project_files
from infra.config import secret_values
from infra.config.load import load_settings
from infra.config.schema import PREFIX, FleetSettings


def read_settings() -> FleetSettings:
    """The stack's settings from Pulumi's configuration.

    Raises:
        SettingsError: everything that is wrong.
    """
    config = pulumi.Config(PREFIX.removesuffix(":"))
    # Pulumi's own interface lists no keys, and one that is misspelt must not be passed over.
    keys = {**pulumi_config.get_config_env(), **pulumi_config.CONFIG.get()}
    values = {key: config.get(key.removeprefix(PREFIX)) or "" for key in keys if key.startswith(PREFIX)}
    secret = {key for key in values if pulumi_config.is_config_secret(key)}
    written = _stack_file(pulumi.get_stack()) if secret else {}
    return load_settings(
        values,
        secret=secret,
        stack=pulumi.get_stack(),
        variables=project_files.role_variables(),
        models=project_files.listed_models(),
        secret_paths={key: secret_values.paths_in_file(written, key) for key in secret},
    )


def _stack_file(stack: str) -> Mapping[str, Any]:
    """What stands below `config` in the stack's file; nothing where it is elsewhere, or can't be read.

    Nothing, too, where environments of Pulumi ESC are mixed in: which of their values are secret is in no file here.
    """
    folder = Path()
    for name in ("Pulumi.yaml", "Pulumi.yml"):
        place = _mapping(folder / name).get("stackConfigDir") if (folder / name).is_file() else None
        folder = folder / place if isinstance(place, str) else folder
    for name in (f"Pulumi.{stack}.yaml", f"Pulumi.{stack}.yml"):
        if (folder / name).is_file():
            content = _mapping(folder / name)
            config = content.get("config")
            return config if isinstance(config, Mapping) and not content.get("environment") else {}
    return {}


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, Mapping) else {}
