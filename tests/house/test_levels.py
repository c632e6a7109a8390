"""Imports go one way: every package keeps to the levels that `levels.toml` declares."""

import ast
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
DECLARED: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("levels.toml").read_text(encoding="utf-8")
)


def modules(package: str) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    root = PROJECT / DECLARED[package]["root"]
    return {_dotted(package, path.relative_to(root)): path for path in root.rglob("*.py")}


def _dotted(package: str, path: Path) -> str:
    parts = [package, *path.with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(name: str, path: Path, known: set[str]) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import in a module, wherever it stands; of a project's module its own name."""
    here = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = here.split(".")[: len(here.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                yield node.lineno, whole if whole in known else source


def member(package: str, name: str) -> str:
    """The part of a package that a dotted name is in; "" for the package itself and what is outside of it."""
    return name.removeprefix(f"{package}.").split(".")[0] if name.startswith(f"{package}.") else ""


def found(package: str) -> Iterator[tuple[str, int, str]]:
    """Module, line and target of every import in a package."""
    known = modules(package)
    for name, path in known.items():
        for line, target in imports(name, path, set(known)):
            yield name, line, target


@pytest.mark.parametrize("package", DECLARED)
def test_every_member_of_a_package_has_one_level(package: str) -> None:
    """A new module is put somewhere on purpose."""
    listed = [name for level in DECLARED[package]["levels"] for name in level]
    assert sorted(listed) == sorted({member(package, name) for name in modules(package)} - {""})


@pytest.mark.parametrize("package", DECLARED)
def test_imports_go_down(package: str) -> None:
    """No member imports from its own level or one above it."""
    order = {name: n for n, level in enumerate(DECLARED[package]["levels"]) for name in level}
    allowed = {(entry["from"], entry["to"]) for entry in DECLARED[package].get("exceptions", ())}
    wrong = [
        f"{name}:{line} imports {target}"
        for name, line, target in found(package)
        for here, there in [(member(package, name), member(package, target))]
        if here and there and here != there and order[here] <= order[there] and (here, there) not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize("package", DECLARED)
def test_modules_import_in_no_circle(package: str) -> None:
    """Within a member too, some module comes first."""
    graph: dict[str, set[str]] = {}
    for name, _, target in found(package):
        if member(package, target) and target != name and not name.startswith(f"{target}."):
            graph.setdefault(name, set()).add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("package", DECLARED)
def test_a_package_imports_no_stranger(package: str) -> None:
    """What is a program of its own is started, never imported."""
    strangers = set(DECLARED[package].get("strangers", ()))
    wrong = [
        f"{name}:{line} imports {target}"
        for name, line, target in found(package)
        if target.split(".")[0] in strangers
    ]
    assert wrong == []


@pytest.mark.parametrize("user", DECLARED["ai_client"]["uses"])
def test_the_ends_use_what_they_may_and_no_more(user: str) -> None:
    """The service and the command line know nothing of how a call is made; what is no longer used is not listed."""
    may = set(DECLARED["ai_client"]["uses"][user])
    used = {
        target.removeprefix("ai_client.")
        for name, _, target in found("ai_client")
        if member("ai_client", name) == user and member("ai_client", target) not in ("", user)
    }
    assert {each for each in used if not may & {each, each.split(".")[0]}} == set()
    assert {each for each in may if not any(f"{use}.".startswith(f"{each}.") for use in used)} == set()
