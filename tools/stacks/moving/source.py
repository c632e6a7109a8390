"""An existing inventory as data, read by Ansible's own parser. No script is run and no Vault is opened."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST_HOSTS = 10_000

_CONFIGURATION = Path(__file__).resolve().parents[3] / "ansible" / "ansible.cfg"
_RANGE = re.compile(r"\[(\d+):(\d+)(?::\d+)?\]")
_YAML = frozenset({".yml", ".yaml", ".json"})


class MovingError(Exception):
    """Why an inventory can't be read, and what to do."""


class Vault:
    """Stands for a value that Vault encrypts. Nobody asked for the password, so nothing is known of it."""


@dataclass(frozen=True, slots=True)
class Value:
    """A variable's value, and the file (below the inventory's folder) that it was read from."""

    content: Any
    origin: str


Variables = dict[str, Value]


@dataclass(slots=True)
class Group:
    """A group as the inventory has it."""

    hosts: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    variables: Variables = field(default_factory=dict)


@dataclass(slots=True)
class Inventory:
    """A whole inventory.

    Attributes:
        groups: groups by name in the order of the file; `all` and `ungrouped` are among them.
        hosts: variables of each host by its name.
    """

    groups: dict[str, Group]
    hosts: dict[str, Variables]


def read(path: Path) -> Inventory:
    """Reads an inventory in Ansible's INI or YAML form.

    Raises:
        MovingError: it is missing, unreadable or malformed.
    """
    text = _text(path)
    for first, last in _RANGE.findall(text):
        if int(last) - int(first) >= MOST_HOSTS:
            raise MovingError(
                f"{path}: the range [{first}:{last}] is more than {MOST_HOSTS} hosts; shorten it"
            )
    found = _parsed(path)
    if not found.hosts:
        raise MovingError(f"{path}: has no host; name the inventory that has")
    return Inventory(
        groups={
            name: Group(
                hosts=[host.name for host in group.hosts],
                children=[child.name for child in group.child_groups],
                variables=_values(group.vars, path.name),
            )
            for name, group in found.groups.items()
        },
        hosts={name: _values(host.vars, path.name) for name, host in found.hosts.items()},
    )


def _text(path: Path) -> str:
    if path.is_dir():
        raise MovingError(f"{path} is a folder; name the inventory file in it")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise MovingError(f"{path} is not UTF-8; convert it with iconv") from None
    except OSError as error:
        raise MovingError(f"{path}: {error.strerror}; name an inventory file") from error


def _parsed(path: Path) -> Any:
    _use_own_configuration()
    from ansible.errors import AnsibleError  # noqa: PLC0415 - reads its configuration at import
    from ansible.inventory.data import InventoryData  # noqa: PLC0415
    from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415
    from ansible.plugins.loader import inventory_loader  # noqa: PLC0415

    inventory = InventoryData()
    plugin = inventory_loader.get("yaml" if path.suffix in _YAML else "ini")
    try:
        plugin.parse(inventory, DataLoader(), str(path), cache=False)
        inventory.reconcile_inventory()
    except AnsibleError as error:
        # The parser repeats what it stumbled over, and that may be a password.
        said = re.sub(r"\bgot: .*", "got something else", " ".join(str(error).split())).rstrip(".")
        raise MovingError(
            f"{path}: {said}; correct it there ('ansible-inventory --list -i' shows it too)"
        ) from None
    return inventory


def variable_files(folder: Path, name: str) -> list[Path]:
    """The files below `group_vars` or `host_vars` that Ansible reads for a group or host."""
    _use_own_configuration()
    from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415 - reads its configuration at import

    if not folder.is_dir() or "/" in name:
        return []
    return [Path(found) for found in DataLoader().find_vars_files(str(folder), name)]


def _use_own_configuration() -> None:
    """Keeps the user's ansible.cfg out: it may name plugins that run programs."""
    os.environ |= {"ANSIBLE_CONFIG": str(_CONFIGURATION), "ANSIBLE_TRANSFORM_INVALID_GROUP_CHARS": "ignore"}


def _values(variables: Mapping[str, Any], origin: str) -> Variables:
    """Variables without those that Ansible adds, as plain data."""
    return {
        str(name): Value(plain(value), origin)
        for name, value in variables.items()
        if name not in {"inventory_file", "inventory_dir"}
    }


def plain(value: Any) -> Any:
    """Ansible's tagged values as plain ones; what JSON can't hold becomes text."""
    return value if isinstance(value, Vault) else json.loads(json.dumps(value, default=str))
