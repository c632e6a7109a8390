"""A plan as one page of HTML, by the template beside this module."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from infra.report import escape, words
from infra.report.model import Change, HostPlan, Plan

_TEMPLATE = Path(__file__).with_name("page.html.j2")
_KINDS = {"+": "added", "-": "gone", "@": "place"}


def page(plan: Plan) -> str:
    """The whole page."""
    return _template().render(
        plan=plan,
        headline=words.headline(plan),
        hosts=sorted(plan.hosts, key=lambda host: (words.label(host).rank, host.name)),
        groups=[group for group in words.grouped(plan.hosts) if group.plan.changes],
        counted_resources=words.counted_resources(plan.resources),
        same=words.SAME,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATE.parent),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "line": _line,
        "label": words.label,
        "reason": words.reason,
        "counted_changes": words.counted_changes,
        "lines": _lines,
    }
    return environment.get_template(_TEMPLATE.name)


def _visible(value: object) -> object:
    """What every text of the page goes through before it is escaped."""
    return escape.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _line(text: str, longest: int = 400) -> str:
    return escape.one_line(text, longest=longest)


def _lines(change: Change, host: HostPlan) -> Iterator[tuple[str, str]]:
    """Each line of a difference with what it is: added, gone, where, or nothing of these."""
    for line in escape.visible(words.diff_text(change, host=host)).split("\n"):
        yield "" if line.startswith(("--- ", "+++ ")) else _KINDS.get(line[:1], ""), line
