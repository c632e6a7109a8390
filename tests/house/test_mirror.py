"""Tests lie as what they test does: a folder for each package, under the same name."""

from __future__ import annotations

from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def packages(root: Path) -> set[str]:
    """The packages right below a folder."""
    return {path.parent.name for path in root.glob("*/__init__.py")}


@pytest.mark.parametrize(
    ("code", "tests", "beside"),
    [
        # The corpus of what providers answered goes through the whole client.
        ("client/src/ai_client", "tests/client", {"corpus"}),
        ("infra", "tests/infra", set()),
    ],
)
def test_every_package_has_its_folder_of_tests(code: str, tests: str, beside: set[str]) -> None:
    """And no folder has another name; each holds tests."""
    folders = {
        path.name for path in (PROJECT / tests).iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    assert folders - beside == packages(PROJECT / code)
    assert [name for name in folders - beside if not list((PROJECT / tests / name).glob("test_*.py"))] == []
