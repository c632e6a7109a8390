"""Writes `Pulumi.<name>.yaml`, commented, for a new stack: `make new-stack NAME=staging`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import jinja2

from infra.errors import SettingsError
from tools.stacks import stack_file
from tools.stacks.stack_file import PROJECT, StackFileError

_TEMPLATE = Path(__file__).with_name("stack.yaml.j2")


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
    parser = argparse.ArgumentParser(prog="tools/new-stack", description=__doc__)
    parser.add_argument("name", help="name of the stack")
    parser.add_argument("--folder", type=Path, default=PROJECT, help="where the file goes")
    options = parser.parse_args(argv)
    try:
        path = make(options.name, options.folder)
    except (StackFileError, SettingsError) as error:
        print(f"new-stack: {error}", file=sys.stderr)
        return 1
    print(f"{path.name} is written. Its first lines say what comes next; see also docs/how-to/new-stack.md.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
