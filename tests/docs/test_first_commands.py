"""Whatever page is opened first: what it says to type first sets an empty clone up."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import OWN_WAY, pages, to_type
from tests.docs.reader import own_path
from tests.fleet.clones import empty_clone

_SET_UP = 97
_STUB = f"#!/bin/sh\necho 'SET UP' >&2\nexit {_SET_UP}\n"
# Typed without anything of the project; its own page's test types it in an empty clone.
_ALONE = {"docs/how-to/just-the-client.md"}


def first_line(page: str) -> str | None:
    """The first line of a page that runs something of the checkout, after the folders that it is to write in."""
    before = ""
    for command in to_type(page):
        for line in () if command.on_host else command.lines():
            if any(part in f" {line}" for part in (" tools/", " make ", " .venv/", " ansible", " pulumi")):
                return before + line
            if line.startswith("mkdir "):
                before += f"{line}\n"
    return None


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone that says when it would set itself up, and does not."""
    folder = tmp_path_factory.mktemp("first") / "clone"
    made = empty_clone(folder, state=folder.parent / "state", stack="none")
    (made.folder / "tools" / "setup").write_text(_STUB)
    return made.folder


@pytest.mark.parametrize("page", [page for page in pages() if page not in OWN_WAY and page not in _ALONE])
def test_every_page_begins_in_an_empty_clone(page: str, checkout: Path) -> None:
    """It reaches the setting up, before it asks for anything that a clone does not have."""
    line = first_line(page)
    if line is None:
        assert all(command.on_host for command in to_type(page))
        return
    environment = {
        "PATH": own_path(),
        "HOME": str(checkout.parent),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
    }
    done = subprocess.run(
        ["/bin/bash", "-c", line],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "SET UP" in done.stderr, (line, done.stderr)
    assert done.returncode != 0
