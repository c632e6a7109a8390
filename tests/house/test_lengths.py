"""A page holds a function, and a sitting a module: what is longer is split where its matter is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
MOST_FUNCTION_LINES = 35
MOST_MODULE_LINES = 400


def too_long(text: str) -> Iterator[str]:
    """The functions of a module whose body is too long, and the module itself.

    Neither signature nor docstring counts: a public function may have many documented parameters.
    """
    if (lines := len(text.splitlines())) > MOST_MODULE_LINES:
        yield f"{lines} lines"
    for function in ast.walk(ast.parse(text)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            body = function.body[1:] if ast.get_docstring(function) is not None else function.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]
            if length > MOST_FUNCTION_LINES:
                yield f"{function.name}: {length} lines"


@pytest.mark.parametrize("root", ["client/src/ai_client", "infra", "policy", "tools", "ansible"])
def test_functions_and_modules_are_short(root: str) -> None:
    """All of them, without exceptions."""
    found = {path: list(too_long(path.read_text("utf-8"))) for path in (PROJECT / root).rglob("*.py")}
    assert found
    assert {str(path.relative_to(PROJECT)): names for path, names in found.items() if names} == {}


def test_a_long_one_is_found() -> None:
    """One line more than may be, of a method too; what documents it is not counted."""
    lines = "".join(f"        x = {number}\n" for number in range(MOST_FUNCTION_LINES))
    documented = (
        f'class A:\n    def f(\n        self,\n    ) -> None:\n        """A\n\n        word."""\n{lines}'
    )
    assert list(too_long(documented)) == []
    assert list(too_long(documented + "        y = 1\n")) == ["f: 36 lines"]
    assert list(too_long("\n" * 401)) == ["401 lines"]
