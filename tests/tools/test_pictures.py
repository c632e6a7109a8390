"""The pictures that the README shows."""

import re
from html import unescape

import pytest

from tests.docs.pages import text_of
from tests.infra.stacks import PROJECT
from tools.pages import terminal

LOG = """setup: installing requirements/control.txt
3 of 4: what the hosts install
4 of 4: roll-out
up   90.4s  create   web-1  (wave web 1/1: 1 of 1 hosts done, 0 failed)
The dev stack is up (3 create). The gateway of api-dev-01 says: <b> & more

Try next:
  make down

real	3m21.297s
"""
PICTURES = PROJECT / "docs" / "pictures"
MOST_BYTES = 150_000


def rows(picture: str) -> list[str]:
    """The lines of text of a picture."""
    return [unescape(row) for row in re.findall(r"<text [^>]*>([^<]*)</text>", picture)]


def test_a_terminal_shows_the_run_as_text() -> None:
    """To the last line of `make up`; what XML takes for marks stays text."""
    shown = rows(terminal.svg("make up", terminal.last_run(LOG), title="a run"))
    assert shown[:2] == ["$ make up", "…"]
    assert any(line.endswith("says: <b> & more") for line in shown)
    assert shown[-1] == "  make down"


def test_a_long_line_is_broken_and_nothing_is_lost() -> None:
    """Each row is within the picture."""
    line = "x" * 150 + " and " + "y" * 50
    broken = rows(terminal.svg("make up", [line], title="a run"))[1:]
    assert "".join(broken).replace(" ", "") == line.replace(" ", "")
    assert max(map(len, broken)) <= 104


def test_a_run_that_failed_is_no_picture() -> None:
    """The README shows a whole one."""
    with pytest.raises(ValueError, match="no whole run"):
        terminal.last_run(LOG.partition("Try next")[0])


def test_the_readme_shows_small_pictures_of_what_the_tools_print() -> None:
    """Each is there and small; the terminal ends in the line that `make up` ends in."""
    for picture in PICTURES.iterdir():
        assert 0 < picture.stat().st_size < MOST_BYTES, picture
    for shown in ("make-up.svg", "status-page.png"):
        assert f"docs/pictures/{shown}" in text_of("README.md")
    assert rows((PICTURES / "make-up.svg").read_text())[-1].strip() == "make down"
