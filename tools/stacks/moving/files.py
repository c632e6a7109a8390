"""`group_vars` and `host_vars`, as Ansible finds them. Vault's files and values are named, never read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tools.stacks.moving.source import Inventory, Value, Variables, Vault, plain, variable_files

_VAULT = b"$ANSIBLE_VAULT;"


class _Loader(yaml.SafeLoader):
    """YAML with Ansible's own tags."""


def _vault(_loader: yaml.SafeLoader, _node: yaml.Node) -> Vault:
    return Vault()


def _unsafe(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


_Loader.add_constructor("!vault", _vault)
_Loader.add_constructor("!vault-encrypted", _vault)
_Loader.add_constructor("!unsafe", _unsafe)


def add(inventory: Inventory, *, group_vars: Path, host_vars: Path) -> list[str]:
    """Adds the variables of both folders to an inventory; they come before its own.

    Returns:
        What could not be read, a line each.
    """
    groups = {name: group.variables for name, group in inventory.groups.items()}
    return [*_add_folder(groups, group_vars, "group"), *_add_folder(inventory.hosts, host_vars, "host")]


def _add_folder(targets: Mapping[str, Variables], folder: Path, kind: str) -> list[str]:
    notes: list[str] = []
    left = {path for path in folder.rglob("*") if path.is_file()} if folder.is_dir() else set()
    for name, variables in targets.items():
        for path in variable_files(folder, name):
            left.discard(path)
            notes += _add_file(variables, path, path.relative_to(folder.parent).as_posix())
    for path in sorted(left):
        shown = path.relative_to(folder.parent).as_posix()
        notes.append(
            f"{shown}: for no {kind} of the inventory, or not a file that Ansible reads; passed over"
        )
    return notes


def _add_file(variables: Variables, path: Path, shown: str) -> list[str]:
    raw = path.read_bytes()
    if raw.startswith(_VAULT):
        return [
            f"{shown}: encrypted with Vault and not read; set what it holds by hand, secrets with --secret"
        ]
    try:
        content = yaml.load(raw.decode(), _Loader)  # noqa: S506 - a SafeLoader with three more tags
    except UnicodeDecodeError:
        return [f"{shown}: not UTF-8 and not read; convert it with iconv"]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        return [f"{shown}: not YAML{f' (line {mark.line + 1})' if mark else ''} and not read"]
    if content is None:
        return []
    if not isinstance(content, dict):
        return [f"{shown}: no mapping of variables, and not read"]
    variables |= {str(name): Value(_known(value), shown) for name, value in content.items()}
    return []


def _known(value: Any) -> Any:
    """A value as plain data; one that holds something of Vault's is Vault's as a whole."""
    return Vault() if _holds_vault(value) else plain(value)


def _holds_vault(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_vault(inner) for inner in value.values())
    if isinstance(value, list):
        return any(_holds_vault(inner) for inner in value)
    return isinstance(value, Vault)
