"""The table of faults: every row is a test that there is."""

import ast
import re

from tests.infra.stacks import PROJECT

PAGE = (PROJECT / "docs" / "reference" / "faults.md").read_text(encoding="utf-8")


def test_every_row_names_a_test_that_is_there() -> None:
    """A renamed or removed test must not leave its claim behind."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| fault ")]
    assert len(rows) > 40
    for row in rows:
        cells = re.split(r" \| ", row.strip("| "))
        assert len(cells) == 4, row
        path, name = cells[3].strip("`").split("::")
        tree = ast.parse((PROJECT / path).read_text(encoding="utf-8"))
        functions = {
            node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in functions, row
