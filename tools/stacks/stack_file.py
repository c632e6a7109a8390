"""Stack files (`Pulumi.<stack>.yaml`) as tools write them: a name that is free, a text that the program accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from infra import project_files
from infra.config.load import load_settings
from infra.config.schema import FleetSettings
from infra.hosts import fleet, house_rules
from infra.state import quota

PROJECT = Path(__file__).resolve().parents[2]
SCHEMA_LINE = "# yaml-language-server: $schema=docs/reference/stack.schema.json"

# The name is part of host names and of the claim on every host.
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?")


class StackFileError(Exception):
    """Why a stack's file can't be written, and what to do."""


def check_name(name: str) -> None:
    """Refuses a name that a stack can't have.

    Raises:
        StackFileError: it is missing or malformed.
    """
    if not name:
        raise StackFileError("no name; write for example 'make new-stack NAME=staging'")
    if not _NAME.fullmatch(name):
        raise StackFileError(
            f"{name!r} is not a valid name for a stack; use at most 32 lower-case letters, digits and hyphens, "
            "and begin with a letter"
        )


def write_new(path: Path, text: str) -> None:
    """Writes a stack's file that is not there yet.

    Raises:
        StackFileError: it is there, or can't be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise StackFileError(f"{path.name} exists already; edit it, or use another name") from None
    except OSError as error:
        raise StackFileError(f"{path} can't be written: {error.strerror}") from error


def load(text: str, *, stack: str) -> FleetSettings:
    """The settings that a stack's file makes, by the way that the program takes. Encrypted values are passed over.

    Raises:
        SettingsError: the program would refuse it.
    """
    return load_config(yaml.safe_load(text)["config"], stack=stack)


def load_config(config: Mapping[str, Any], *, stack: str) -> FleetSettings:
    """The same of what stands below `config`."""
    values = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in config.items()
        if not (isinstance(value, Mapping) and "secure" in value)
    }
    loaded = load_settings(
        values,
        secret=(),
        stack=stack,
        variables=project_files.role_variables(),
        models=project_files.listed_models(),
    )
    if not any(group.source == "ec2" for group in loaded.groups.values()):
        house_rules.check(loaded, quota.compile_limits(loaded, fleet.build(loaded)))
    return loaded
