"""A stranger's hour: AGENTS.md leads to the table, the table to the file, and the name is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PAGE = PROJECT / "docs" / "architecture.md"
ROWS = re.findall(
    r"^\| ([^|]+\?) \| \[`([^`]+)`\]\(\.\./([^)]+)\) \| `(\w+)` \|$",
    PAGE.read_text(encoding="utf-8"),
    re.MULTILINE,
)


def test_there_are_twenty_questions_and_a_way_to_them() -> None:
    """Each once."""
    assert len({question for question, *_ in ROWS}) == len(ROWS) >= 20
    assert "docs/architecture.md" in (PROJECT / "AGENTS.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("question", "told", "link", "name"), ROWS)
def test_the_answer_is_where_the_table_says(question: str, told: str, link: str, name: str) -> None:
    """The link goes where it says, and the name is defined there, with a word about it."""
    assert told == link, question
    tree = ast.parse((PROJECT / link).read_text(encoding="utf-8"))
    defined = {
        node.name: ast.get_docstring(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert name in defined, question
    assert defined[name], f"{name} in {link} has no docstring"
