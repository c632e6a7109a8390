"""The page: it needs nothing else, shows everything, and hostile text does nothing in it."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings

from infra.report.model import Plan
from infra.report.page import page
from tests.browser import shown_at
from tests.infra.report.readers import html
from tests.infra.report.samples import CANARY, PLANS, differing

pytestmark = pytest.mark.slow

TAGS = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "h1",
    "h2",
    "p",
    "div",
    "strong",
    "ul",
    "li",
    "code",
    "pre",
    "span",
}
TAGS |= {"table", "tr", "th", "td", "details", "summary"}


@settings(deadline=None)
@given(plan=PLANS)
def test_hostile_text_is_text_in_a_page(plan: Plan) -> None:
    """No element, attribute or comment is made of it."""
    seen = html(page(plan))
    assert seen.tags <= TAGS
    assert seen.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class"}
    assert seen.comments == []
    title = plan.stack.replace("\n", "")
    assert seen.outside.count(CANARY) <= 2 * title.count(CANARY)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u202e]", seen.inside + seen.outside)


def test_a_page_needs_nothing_else() -> None:
    """No script, and nothing is fetched: the browser is told to refuse it."""
    text = page(Plan(stack="dev", hosts=(differing("a"),)))
    assert "default-src 'none'" in text
    assert not re.search(r"<(script|link|img|iframe)|url\(|@import|https?://", text)


def test_a_page_shows_500_hosts_whole() -> None:
    """There is no limit: every host has its row, and every difference is there to its last line."""
    hosts = tuple(differing(f"host-{n:03d}", lines=50, own=str(n)) for n in range(500))
    text = page(Plan(stack="production", hosts=hosts))
    seen = html(text)
    assert all(f"line 49 of the configuration {n}" in seen.inside for n in range(500))
    assert text.count('<span class="added">') == 500 * 50
    assert text.count("✏️ changes") == 2 * 500


def test_lines_of_a_difference_are_marked() -> None:
    """Added, gone, where; the two headers are none of these."""
    text = page(Plan(stack="dev", hosts=(differing("a", lines=1),)))
    assert '<span class="added">+line 0 of the configuration </span>' in text
    assert '<span class="place">@@ -1 +1 @@</span>' in text
    assert "<span>--- /etc/x.conf on the host</span><span>+++ /etc/x.conf declared</span>" in text


def test_every_host_is_shown_from_400_px_to_wide_dark_and_light(tmp_path: Path) -> None:
    """Names, states and lines of a difference, however long; nothing sticks out of the page, or is cut off."""
    names = ("web-prod-01", "a-host-with-a-long-name-" * 3)
    plan = Plan(stack="production", hosts=tuple(differing(name, lines=3) for name in names))
    colours = set()
    for width, scheme in ((400, 1), (400, 0), (2400, 1)):
        shown = shown_at(page(plan), tmp_path, width=width, scheme=scheme)
        assert (shown.needed_px <= width, shown.cut) == (True, 0), (width, shown.needed_px, shown.cut)
        assert all(name in shown.text for name in names)
        colours.add(shown.colours)
    assert len(colours) == 2
