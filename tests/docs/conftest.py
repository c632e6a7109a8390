"""The clone that pages are typed in: nothing is linked into it, and the first command that is typed sets it up."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fleet.clones import Clone, empty_clone

NewClone = Callable[[str], Clone]


@pytest.fixture(scope="session")
def clones_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the clone is, test after test."""
    return tmp_path_factory.mktemp("pages") / "clone"


@pytest.fixture
def new_clone(clones_folder: Path, tmp_path: Path) -> NewClone:
    """Makes a clone for a stack, with a state of its own. All of it is new, but for the `.venv` that one made before.

    `test_every_page_begins_in_an_empty_clone` shows that no page needs that one.
    """

    def make(stack: str) -> Clone:
        for entry in clones_folder.iterdir() if clones_folder.exists() else ():
            if entry.is_dir() and entry.name != ".venv":
                shutil.rmtree(entry)
            elif entry.name != ".venv":
                entry.unlink()
        return empty_clone(clones_folder, state=tmp_path / "state", stack=stack)

    return make
