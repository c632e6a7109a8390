"""Writes `Pulumi.<name>.yaml`, commented, for a new stack: `make new-stack NAME=staging`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jinja2

from infra.errors import SettingsError
from tools import stack_file
from tools.stack_file import PROJECT, StackFileError

_TEMPLATE = PROJECT / "tools" / "stack.yaml.j2"


def text(name: str) -> str:
    """The new stack's file."""
    template = jinja2.Template(
        _TEMPLATE.read_text(encoding="utf-8"), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    names = {"name": name, "environment": name, "group": name.replace("-", "_")}
    return str(template.render(names, schema_line=stack_file.SCHEMA_LINE))


def make(name: str, folder: Path) -> Path:
    """Writes the file and answers its path.

    Raises:
        StackFileError: the name is none, or there is such a stack already.
        SettingsError: the program would refuse the file.
    """
    stack_file.check_name(name)
    written = text(name)
    stack_file.load(written, stack=name)
    path = folder / f"Pulumi.{name}.yaml"
    stack_file.write_new(path, written)
    return path


def main(argv: list[str]) -> int:
    """Exit status 0 where the file was written, 1 where not."""
    parser = argparse.ArgumentParser(prog="tools/new_stack.py", description=__doc__)
    parser.add_argument("name", help="name of the stack")
    parser.add_argument("--folder", type=Path, default=PROJECT, help="where the file goes")
    options = parser.parse_args(argv)
    try:
        path = make(options.name, options.folder)
    except (StackFileError, SettingsError) as error:
        print(f"new-stack: {error}", file=sys.stderr)
        return 1
    print(f"{path.name} is written. What comes next stands at its top; docs/how-to/new-stack.md tells more.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
