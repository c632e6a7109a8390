"""Which files make up a tree, and what is in them."""

import csv
import io
from pathlib import Path, PurePosixPath

from tools.artefact.elf import check_machine, is_elf
from tools.artefact.errors import ArtefactError
from tools.artefact.tags import Tag

# Marks of the installer and of the machine that built; they differ between two builds of the same tree.
_INSTALLER_FILES = frozenset({".lock", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"})
# Read by compilers and type checkers only.
_BUILD_SUFFIXES = frozenset({".c", ".h", ".pxd", ".pxi", ".pyc", ".pyi", ".pyx"})
_TEST_FOLDERS = frozenset({"test", "tests"})

# The host starts `python3 -I -S main.py`: its own packages, PYTHON* variables and site files stay out.
MAIN = '''\
"""Starts the client from this tree alone."""

import os
import sys

# Resolved once: a release switched while the process runs changes nothing in it.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "lib"))

from ai_client.cli import main

if __name__ == "__main__":
    sys.exit(main())
'''


def belongs(name: str) -> bool:
    """Whether an installed file, named from the top of the target folder, is part of the tree."""
    path = PurePosixPath(name)
    if path.parts[0] == "bin" or path.name in _INSTALLER_FILES or path.suffix in _BUILD_SUFFIXES:
        return False
    # A package named `tests` at the top may be imported; inside another package it is ballast.
    return "__pycache__" not in path.parts and _TEST_FOLDERS.isdisjoint(path.parts[1:-1])


def trim_record(content: bytes) -> bytes:
    """RECORD without the files that `belongs` leaves out, sorted, so that it still proves the tree."""
    rows = [row for row in csv.reader(io.StringIO(content.decode())) if row and _recorded(row[0])]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(sorted(rows))
    return out.getvalue().encode()


def _recorded(name: str) -> bool:
    return not name.startswith("../") and belongs(name)


def collect(installed: Path, *, tag: Tag, client: dict[str, bytes]) -> dict[str, bytes]:
    """The tree's files by name: the installed dependencies and the client under `lib/`, `main.py` on top."""
    files = {"main.py": MAIN.encode()}
    for path in sorted(installed.rglob("*")):
        name = path.relative_to(installed).as_posix()
        if path.is_symlink():
            raise ArtefactError(f"{name} in the tree {tag} is a symbolic link; wheels hold plain files only")
        if path.is_file() and belongs(name):
            content = path.read_bytes()
            files[f"lib/{name}"] = trim_record(content) if path.name == "RECORD" else content
    for name, content in client.items():
        if f"lib/{name}" in files:
            raise ArtefactError(f"{name} of the client is also a dependency's; rename it in client/src")
        files[f"lib/{name}"] = content
    for name, content in files.items():
        if is_elf(content):
            check_machine(name, content, tag=tag)
    return files
