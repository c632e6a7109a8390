"""Writes a stack's configuration from an existing Ansible inventory, and lists what it could not carry over.

Variables come from `group_vars` and `host_vars` beside the inventory too. Vault files and values are named and not
read; an upstream key is never copied, wherever it stands.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from infra.hosts.house_rules import secret_in
from infra.project_files import role_variables
from tools.stacks import stack_file
from tools.stacks.moving import files, source
from tools.stacks.moving.config import Config, Move
from tools.stacks.moving.source import MovingError
from tools.stacks.stack_file import PROJECT, SCHEMA_LINE, StackFileError

_NOTHING = "Everything was carried over."


def move(inventory: Path, *, group_vars: Path | None, stack: str) -> tuple[Config, list[str]]:
    """The configuration that an inventory makes, and what it does not hold.

    Raises:
        MovingError: the inventory can't be read, or nothing can be made of it.
    """
    found = source.read(inventory)
    groups = group_vars or inventory.parent / "group_vars"
    if group_vars is not None and not group_vars.is_dir():
        raise MovingError(f"{group_vars} is not a folder; name the one that holds the groups' variables")
    unread = files.add(found, group_vars=groups, host_vars=groups.parent / "host_vars")
    moving = Move(found, stack=stack, specs=role_variables())
    config = moving.config()
    return config, [_line(note) for note in (*unread, *moving.notes())]


def text(config: Config, notes: Sequence[str], *, origin: str, stack: str) -> str:
    """The stack's file."""
    listed = [f"#   - {_line(note)}" for note in notes]
    head = [
        SCHEMA_LINE,
        f"# Made from the inventory {_line(origin)} by tools/move-in; see docs/how-to/moving-in.md.",
        *(["# Not carried over, or changed:", *listed] if listed else [f"# {_NOTHING}"]),
    ]
    body = yaml.dump({"config": config}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    written = "\n".join(head) + "\n" + body
    stack_file.load(written, stack=stack)
    return written


class _Dumper(yaml.SafeDumper):
    """YAML as the shipped stack files have it: a host without more than scalars on one line."""

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> Any:
        is_host = isinstance(mapping, dict) and "address" in mapping and "vars" not in mapping
        return super().represent_mapping(tag, mapping, flow_style=True if is_host else flow_style or False)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        is_short = not any(isinstance(each, dict | list) for each in sequence)
        return super().represent_sequence(tag, sequence, flow_style=is_short or flow_style)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _line(text: str) -> str:
    """Text with names from files that others wrote: on one line, without control characters and without secrets."""
    line = "".join(char for char in " ".join(text.split()) if char.isprintable())[:300]
    return line if secret_in(line) is None else "something whose name holds a secret; treat that as disclosed"


def main(argv: list[str]) -> int:
    """Exit status 0 where the file was written, 1 where not."""
    parser = argparse.ArgumentParser(prog="tools/move-in", description=__doc__)
    parser.add_argument("inventory", type=Path, help="Ansible inventory in INI or YAML form")
    parser.add_argument(
        "--group-vars", type=Path, metavar="DIR", help="default: group_vars beside the inventory"
    )
    parser.add_argument("--stack", metavar="NAME", help="default: the inventory's name without its ending")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: Pulumi.NAME.yaml in this project")
    options = parser.parse_args(argv)
    stack = options.stack or options.inventory.stem
    path = options.out or PROJECT / f"Pulumi.{stack}.yaml"
    try:
        stack_file.check_name(stack)
        config, notes = move(options.inventory, group_vars=options.group_vars, stack=stack)
        stack_file.write_new(path, text(config, notes, origin=options.inventory.name, stack=stack))
    except (MovingError, StackFileError) as error:
        print(f"move-in: {error}", file=sys.stderr)
        return 1
    print(f"{path.name} is written." if notes else f"{path.name} is written. {_NOTHING}")
    if notes:
        print("Not carried over, or changed:")
        print("\n".join(f"  - {note}" for note in notes))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
