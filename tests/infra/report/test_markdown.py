"""The comment: what is in it, what hostile text can't do in it, and that it is never too long."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.report.markdown import LIMIT_BYTES, SMALLEST_LIMIT_BYTES, comment, marker
from infra.report.model import Cause, Change, HostPlan, Plan, ResourceChange
from infra.report.reading import read
from tests.infra.report.readers import markdown
from tests.infra.report.samples import CANARY, HOSTILE, HOSTS, PLANS, differing

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).with_name("golden")
GITHUB_LIMIT_CHARACTERS = 65_536
TAGS = {"h2", "p", "ul", "li", "code", "table", "tr", "th", "td", "details", "summary"}


@settings(deadline=None)
@given(plan=PLANS)
def test_hostile_text_is_in_code_alone(plan: Plan) -> None:
    """No markup, mention, link, comment or attribute is made of what hosts and configuration say."""
    seen, fenced = markdown(comment(plan))
    assert CANARY not in seen.outside
    assert seen.tags <= TAGS
    assert seen.attributes <= {"colspan"}
    assert len(seen.comments) == 1
    assert not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u202e]", seen.inside + seen.outside + fenced
    )


@settings(deadline=None)
@given(plan=PLANS)
def test_no_line_of_hostile_text_starts_a_block_of_markdown(plan: Plan) -> None:
    """Outside of fences every line is our own words, or belongs to a block of HTML that no blank line ends."""
    text = comment(plan)
    first, rest = text.split("\n", 1)
    assert first.startswith("<!-- fleet-plan: ")
    blocks = re.split(r"\n{2,}", re.sub(r"(?ms)^(`{3,}|~{3,})diff\n.*?^\1$", "", rest))
    for block in filter(str.strip, blocks):
        assert re.match(r"\n*(<(h2|p|table|details|/details)>|\*\*|> \[!(CAUTION|WARNING)\]\n> )", block), (
            block
        )


@settings(deadline=None)
@given(path=HOSTILE, diff=HOSTILE)
def test_every_difference_is_shown_whole(path: str, diff: str) -> None:
    """Escaping takes nothing away: visible characters of a diff are all in the fenced block."""
    plan = Plan(stack="dev", hosts=(HostPlan(name="a", state="differs", changes=(Change(path, diff),)),))
    _, fenced = markdown(comment(plan))
    for word in re.findall(r"[A-Za-z0-9@`~<>\[\]()|]{3,}", diff):
        assert word in fenced


@settings(max_examples=20, deadline=None)
@given(
    hosts=st.lists(HOSTS, max_size=6),
    count=st.sampled_from([0, 30, 500]),
    lines=st.sampled_from([0, 5, 400]),
    limit=st.integers(SMALLEST_LIMIT_BYTES, LIMIT_BYTES),
)
def test_a_comment_is_never_too_long(hosts: list[HostPlan], count: int, lines: int, limit: int) -> None:
    """500 hosts, each with differences of its own and all that can be said of a preview, within any limit."""
    many = [differing(f"host-{n:03d}", lines=lines, own=str(n)) for n in range(count)]
    long = tuple(f"{n}: <&\"'{'x' * 3000}" for n in range(40))
    resources = tuple(ResourceChange("update", f"claim-{n}<&", "k", ("KEY",) * 9) for n in range(count))
    plan = Plan(
        stack="s" * 300,
        hosts=(*hosts, *many),
        resources=resources,
        blockers=long,
        errors=long,
        warnings=long,
        digest="ab" * 64,
        is_finished=False,
    )
    text = comment(plan, limit_bytes=limit, details_url=f"https://ci.example/{'r' * 480}")
    assert len(text.encode()) <= limit
    markdown(text)


def test_500_hosts_fit_github() -> None:
    """The worst that GitHub must take: 500 hosts that each differ in a way of their own."""
    hosts = tuple(differing(f"web-prod-{n:03d}", lines=60, own=str(n)) for n in range(500))
    text = comment(Plan(stack="production", hosts=hosts))
    assert len(text) <= GITHUB_LIMIT_CHARACTERS
    assert text.count("<details>") > 20
    assert re.search(
        r"Omitted to keep the comment within its limit: the differences of <code>web-prod-\d+</code>", text
    )
    assert "500 hosts: 500 to change." in text


def test_what_matters_least_is_left_out_first() -> None:
    """Drift keeps its differences; declared changes are cut short, and of the last ones nothing is shown."""
    declared = [differing(f"web-{n:02d}", lines=200, own=str(n)) for n in range(60)]
    drifted = [differing(f"api-{n:02d}", lines=40, cause=Cause.DRIFT, own=str(n)) for n in range(3)]
    text = comment(Plan(stack="dev", hosts=(*declared, *drifted)), limit_bytes=40_000)
    shown = re.findall(r"<details><summary><code>([a-z]+)-(\d+)", text)
    assert [name for name, _ in shown[:3]] == ["api"] * 3
    assert 0 < len([name for name, _ in shown if name == "web"]) < 60
    assert "line 39 of the configuration 2" in text  # the third that drifted, to its last line
    assert "more lines omitted" in text
    left_out = re.search(r"Omitted to[^\n]*and (\d+) more\.", text)
    assert left_out
    assert int(left_out[1]) + 5 == 63 - len(shown)


def test_hosts_that_change_alike_are_shown_once() -> None:
    """400 hosts with the same difference are one row, and one folded part that names them all."""
    hosts = tuple(differing(f"web-{n:03d}") for n in range(400))
    text = comment(Plan(stack="dev", hosts=hosts))
    assert text.count("line 0 of the configuration") == 1
    assert text.count("<details>") == 1
    assert all(f"<code>web-{n:03d}</code>" in text for n in range(400))
    assert "and 394 more</td><td>✏️ changes" in text


@pytest.mark.parametrize("count", [1, 25])
def test_a_small_fleet_has_a_row_for_each_host(count: int) -> None:
    """Those that are as declared too."""
    hosts = tuple(HostPlan(name=f"web-{n}", state="same") for n in range(count))
    text = comment(Plan(stack="dev", hosts=hosts))
    assert text.count("✅ as declared") == count
    assert f"**Nothing to change: {'1 host' if count == 1 else '25 hosts'} as declared.**" in text


@pytest.mark.parametrize("stack", ["production", "a-->b", "x" * 500, "", "<!-- b", "ü @all"])
def test_the_marker_is_a_comment_whatever_the_stack_is_called(stack: str) -> None:
    """It names the stack, so that each stack has a comment of its own."""
    assert re.fullmatch(r"<!-- fleet-plan: [A-Za-z0-9_.-]{1,100} -->", marker(stack))
    assert comment(Plan(stack=stack)).startswith(marker(stack))
    assert marker("dev") != marker("production")


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "https://", "x", "", f"https://h/{'x' * 600}", "https://h/\n"]
)
def test_only_a_web_address_becomes_a_link(url: str) -> None:
    """The address comes from CI; whatever else it is, no link is made of it."""
    assert "<a " not in comment(Plan(stack="dev"), details_url=url)


def test_an_address_is_escaped() -> None:
    """As an attribute needs."""
    text = comment(Plan(stack="dev"), details_url='https://ci.example/run?a=1&b="2"')
    assert '<a href="https://ci.example/run?a=1&amp;b=&quot;2&quot;">' in text


def test_a_comment_looks_as_it_is_meant_to() -> None:
    """One preview as the engine streams it, and the whole comment of it."""
    plan = read((GOLDEN / "preview.jsonl").read_text(encoding="utf-8"))
    expected = (GOLDEN / "comment.md").read_text(encoding="utf-8")
    assert comment(plan, details_url="https://ci.example/runs/1") == expected
