"""Modules are found by where Python is started, never by a line of a program that changes its path."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
EDIT = re.compile(r"\bsys\.path(\.\w+\(|\[.*\] *=[^=]| *\+?= )|\baddsitedir\(")
# Both are for an interpreter started with -I and -S, on a host, which takes its path from nowhere else.
ISOLATED = {"tools/artefact/tree.py", "client/src/ai_client/gateway/process/spool_child.py"}


def programs() -> dict[str, str]:
    """Every file of Python or of a shell by its name, this one apart."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [name for name in listed.stdout.splitlines() if name != str(Path(__file__).relative_to(PROJECT))]
    found = {}
    for name in paths:
        path = PROJECT / name
        if path.suffix in ("", ".py", ".sh") and path.is_file():
            found[name] = path.read_bytes().decode("utf-8", "replace")
    return found


def edits(files: dict[str, str]) -> set[str]:
    """The files that change Python's path."""
    return {name for name, text in files.items() if EDIT.search(text)}


def test_no_program_changes_its_path() -> None:
    """`tools/run` starts what is in `tools`; `tools/setup` puts the checkout on the path of .venv."""
    assert edits(programs()) == ISOLATED


def test_an_edit_is_found() -> None:
    """In each of its forms."""
    lines = ("sys.path.insert(0, x)", "sys.path[:0] = [x]", "sys.path += [x]", "site.addsitedir(x)")
    assert edits({line: f"import sys\n{line}\n" for line in lines} | {"read": "x in sys.path"}) == set(lines)
