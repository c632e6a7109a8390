"""What users rely on, by name, as the generated reference lists it. `python -m tests.docs.promises` writes it down.

It is written when a version with a new first or second number is released, and never to make a test pass.
"""

import json
import re
from pathlib import Path

import ai_client
from tests.docs.pages import text_of

WRITTEN = Path(__file__).with_name("promised-1.0.json")
PAGES = ("client-file", "command-line", "configuration", "metrics", "role-variables")


def current() -> dict[str, list[str]]:
    """For each page the first cells of its tables, with the heading above them; metrics with their labels."""
    found = {page: sorted(_rows(text_of(f"docs/reference/{page}.md"))) for page in PAGES}
    return found | {"python": sorted(ai_client.__all__)}


def _rows(text: str) -> set[str]:
    section, rows = "", set()
    for line in text.splitlines():
        if line.startswith("#"):
            section = line.lstrip("# ")
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and cells[0].startswith("`"):
            labels = f" {cells[2]}" if section == "Metrics" else ""
            rows.add(f"{section}: {cells[0]}{labels}")
    return rows


if __name__ == "__main__":
    WRITTEN.write_text(json.dumps(current(), indent=1, ensure_ascii=False) + "\n")
