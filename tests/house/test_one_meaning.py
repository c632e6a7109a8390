"""One meaning a word: within a distribution no two classes have the same name, private ones included."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def shared_names(modules: Mapping[str, str]) -> dict[str, list[str]]:
    """The names that several classes have, each with the modules that they are in."""
    found = defaultdict(list)
    for module, text in modules.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(module)
    return {name: sorted(places) for name, places in found.items() if len(places) > 1}


def modules_of(roots: Iterable[str]) -> dict[str, str]:
    """All modules below folders, by their paths."""
    paths = (path for root in roots for path in (PROJECT / root).rglob("*.py"))
    return {str(path.relative_to(PROJECT)): path.read_text("utf-8") for path in paths}


@pytest.mark.parametrize(
    "distribution",
    [("client/src/ai_client",), ("ansible",)],
)
def test_no_two_classes_share_a_name(distribution: tuple[str, ...]) -> None:
    """Who reads a name knows which one is meant, wherever it stands."""
    modules = modules_of(distribution)
    assert modules
    assert shared_names(modules) == {}


def test_a_shared_name_is_found() -> None:
    """Wherever the classes stand; in one module twice is twice too."""
    inside = "def f():\n    class A: ...\n"
    assert shared_names({"one.py": "class A: ...\nclass B: ...\n", "two.py": inside}) == {
        "A": ["one.py", "two.py"]
    }
