"""Hosts of a group in a file of their own (`fleet:groups.GROUP.hostsFile`).

Pulumi hands a stack's whole configuration to the program in one variable of its environment, which Linux holds to
128 KiB: some 800 hosts with their keys. A file has no such end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from infra.config.schema import PREFIX
from infra.errors import SettingsError

_SHAPE = "write hosts by name, as below a group's 'hosts'"


def put_in(own: dict[str, Any]) -> list[SettingsError]:
    """Puts the hosts of all files beside those that the configuration has itself. What is wrong with the files."""
    groups = own.get("groups")
    return [error for name, group in _named(groups) for error in _put_in_group(name, group)]


def _named(groups: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Groups that name a file; those of another shape are refused elsewhere."""
    for name, group in groups.items() if isinstance(groups, dict) else ():
        if isinstance(group, dict) and isinstance(group.get("hostsFile"), str):
            yield name, group


def _put_in_group(name: str, group: dict[str, Any]) -> Iterator[SettingsError]:
    key, path = f"{PREFIX}groups.{name}.hostsFile", group["hostsFile"]
    try:
        hosts = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe loader
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        yield SettingsError(key, f"{path} can't be read ({why})", "name a file below the project folder")
        return
    except yaml.YAMLError as error:
        yield SettingsError(key, f"{path} is no YAML: {_in_one_line(error)}", _SHAPE)
        return
    declared = group.get("hosts", {})
    if not isinstance(hosts, dict) or not isinstance(declared, dict):
        yield SettingsError(key, f"{path} holds no hosts by name", _SHAPE)
        return
    for host in sorted(hosts.keys() & declared.keys()):
        yield SettingsError(key, f"{host} is in {path} and in 'hosts'", "remove one of the two")
    group["hosts"] = {**hosts, **declared}


def _in_one_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())


class _Loader(yaml.SafeLoader):
    """Refuses a name that is there twice, of which YAML would keep the last."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
        seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
