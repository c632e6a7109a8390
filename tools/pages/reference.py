"""Writes `docs/reference` from the code, or with `--check` says what there is out of date."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tools.pages import (
    client_file,
    configuration,
    events,
    metrics,
    options,
    role_variables,
    simulator,
    stack_schema,
    targets,
)

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"


def _stack_schema() -> str:
    return json.dumps(stack_schema.schema(), indent=2, ensure_ascii=False) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    "configuration.md": configuration.text,
    "stack.schema.json": _stack_schema,
    "role-variables.md": role_variables.text,
    "client-file.md": client_file.text,
    "command-line.md": options.text,
    "metrics.md": metrics.text,
    "events.md": events.text,
    "make.md": targets.text,
    "simulator.md": simulator.text,
}


def pages() -> Iterator[tuple[str, str]]:
    """Name and text of each page."""
    for name, text in PAGES.items():
        yield name, text()


def stale(folder: Path) -> list[str]:
    """Names of the pages in a folder that do not say what the code says."""
    return [name for name, text in pages() if _read(folder / name) != text]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def main(argv: list[str]) -> int:
    """Writes or checks. Exit status 1 where a page is out of date."""
    parser = argparse.ArgumentParser(prog="tools/reference", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 where a page is stale"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the pages are")
    options_given = parser.parse_args(argv)
    # The pages must not depend on who writes them.
    os.environ.pop("AI_CLIENT_CONFIG", None)
    if options_given.check:
        old = stale(options_given.folder)
        for name in old:
            print(f"reference: {name} is out of date; run 'make reference'")
        return 1 if old else 0
    options_given.folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (options_given.folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
