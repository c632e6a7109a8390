"""A plan as one comment of a pull request, in GitHub's (and GitLab's) Markdown, within the limit on its length.

What hosts and configuration say stands only in blocks of HTML, within `<code>`, and in fenced blocks of code: there
neither Markdown nor mentions nor links are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from infra.report import escape, words
from infra.report.fit import Piece, fit, leading, size
from infra.report.model import Change, HostPlan, Plan
from infra.report.words import HostGroup

LIMIT_BYTES = 65_000  # GitHub takes 65,536 characters
SMALLEST_LIMIT_BYTES = 8_000

_TABLE_SHARE = 0.35
_LIST_SHARE = 0.12
_FEW_HOSTS = 25
_SHORT_DIFF_LINES = 30
_LEFT_OUT_BYTES = 900


def marker(stack: str) -> str:
    """The first line of a stack's comment, by which the comment is found again."""
    return f"<!-- fleet-plan: {_plain_name(stack)} -->"


def comment(plan: Plan, *, details_url: str = "", limit_bytes: int = LIMIT_BYTES) -> str:
    """The whole comment.

    Args:
        plan: what it says.
        details_url: where the full report is, for its last line.
        limit_bytes: longest that it may be, at least SMALLEST_LIMIT_BYTES.
    """
    groups = words.grouped(plan.hosts)
    head = [*_head(plan, limit_bytes), _table(groups, limit_bytes)]
    foot = [*_resources(plan, limit_bytes), *_warnings(plan, limit_bytes), _last_line(plan, details_url)]
    shown = [group for group in groups if group.plan.changes]
    pieces = [Piece(tuple(_details(group)), words.label(group.plan).rank) for group in shown]
    taken = size("\n\n".join([*head, *foot])) + _LEFT_OUT_BYTES
    levels = fit(pieces, limit_bytes=limit_bytes - taken)
    details = [piece.forms[level] for piece, level in zip(pieces, levels, strict=True)]
    left_out = [group for group, text in zip(shown, details, strict=True) if not text]
    parts = [*head, *details, _left_out(left_out), *foot]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _plain_name(text: str) -> str:
    """A name with nothing in it that could end a comment of HTML."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text)[:100] or "stack"


def _head(plan: Plan, limit_bytes: int) -> Iterator[str]:
    yield marker(plan.stack)
    yield f"<h2>Plan for {escape.code(plan.stack, longest=100)}</h2>"
    alert = "CAUTION" if not plan.is_finished else "WARNING" if plan.blockers else ""
    yield f"> [!{alert}]\n> {words.headline(plan)}" if alert else f"**{words.headline(plan)}**"
    budget = int(limit_bytes * _LIST_SHARE)
    if plan.errors:
        yield _list("Why the preview failed", plan.errors, budget)
    if plan.blockers:
        yield _list("<code>up</code> still needs", plan.blockers, budget)
    if not plan.lists_hosts and plan.is_finished:
        yield (
            "<p>This preview does not report every host's state: set"
            " <code>PULUMI_ENABLE_STREAMING_JSON_PREVIEW=1</code> to see all hosts.</p>"
        )


def _list(title: str, texts: Sequence[str], budget: int) -> str:
    items = [f"<li>{escape.code(text, longest=1000)}</li>" for text in texts]
    kept = leading(items, limit_bytes=budget)
    more = [f"<li>and {len(items) - len(kept)} more</li>"] if len(kept) < len(items) else []
    return "\n".join([f"<p>{title}:</p><ul>", *kept, *more, "</ul>"])


def _table(groups: Sequence[HostGroup], limit_bytes: int) -> str:
    """A row for each host; where there are many, a row for all whose rows would be alike."""
    if not groups:
        return ""
    are_few = sum(len(group.names) for group in groups) <= _FEW_HOSTS
    chosen = [single for group in groups for single in _singles(group)] if are_few else _alike(groups)
    rows = leading(map(_row, chosen), limit_bytes=int(limit_bytes * _TABLE_SHARE))
    missing = sum(len(group.names) for group in chosen[len(rows) :])
    more = [f'<tr><td colspan="4">and {missing} more hosts</td></tr>'] if missing else []
    head = "<tr><th>host</th><th>state</th><th>what <code>up</code> changes</th><th>why</th></tr>"
    return "\n".join(["<table>", head, *rows, *more, "</table>"])


def _singles(group: HostGroup) -> list[HostGroup]:
    return [HostGroup(group.plan, (name,)) for name in group.names]


def _alike(groups: Sequence[HostGroup]) -> list[HostGroup]:
    rows: dict[str, HostGroup] = {}
    for group in groups:
        cells = _row(HostGroup(group.plan, ()))
        before = rows.get(cells, HostGroup(group.plan, ()))
        rows[cells] = HostGroup(before.plan, (*before.names, *group.names))
    return list(rows.values())


def _row(group: HostGroup) -> str:
    shown = words.label(group.plan)
    cells = [_names(group.names, most=6), f"{shown.sign} {shown.word}", _what(group.plan), _why(group.plan)]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _names(names: Sequence[str], *, most: int) -> str:
    shown = ", ".join(escape.code(name, longest=70) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _what(plan: HostPlan) -> str:
    if plan.changes:
        return f"{len(plan.changes)}: {_names([change.path for change in plan.changes], most=4)}"
    return escape.code(plan.message, longest=300) if plan.message else ""


def _why(plan: HostPlan) -> str:
    return escape.html(escape.one_line(words.reason(plan), longest=120))


def _details(group: HostGroup) -> Iterator[str]:
    """A folded part with all differences; with each cut short; the same without every host's name; nothing."""
    shown = words.label(group.plan)
    summary = f"{_names(group.names, most=3)}: {shown.sign} {shown.word}, {words.counted_changes(group.plan)}"
    names = f"<p>{_names(group.names, most=len(group.names))}</p>\n\n" if len(group.names) > 3 else ""
    for all_names, longest in ((names, None), (names, _SHORT_DIFF_LINES), ("", _SHORT_DIFF_LINES)):
        diffs = "\n".join(_diff(change, group.plan, longest=longest) for change in group.plan.changes)
        fenced = escape.fenced(diffs, language="diff")
        yield f"<details><summary>{summary}</summary>\n\n{all_names}{fenced}\n\n</details>"
    yield ""


def _diff(change: Change, host: HostPlan, *, longest: int | None) -> str:
    text = words.diff_text(change, host=host)
    lines = text.splitlines()
    if longest is None or len(lines) <= longest:
        return text
    return "\n".join([*lines[:longest], f"({len(lines) - longest} more lines omitted)"])


def _left_out(groups: Sequence[HostGroup]) -> str:
    """Says of whom the differences are not shown."""
    if not groups:
        return ""
    names = [name for group in groups for name in group.names]
    return f"<p>Omitted to keep the comment within its limit: the differences of {_names(names, most=5)}.</p>"


def _resources(plan: Plan, limit_bytes: int) -> Iterator[str]:
    if not plan.resources:
        return
    items = [
        f"<li>{resource.operation} {escape.code(resource.name, longest=100)}{_inputs(resource.inputs)}</li>"
        for resource in plan.resources
    ]
    kept = leading(items, limit_bytes=int(limit_bytes * _LIST_SHARE))
    more = [f"<li>and {len(items) - len(kept)} more</li>"] if len(kept) < len(items) else []
    title = f"Resources: {', '.join(words.counted_resources(plan.resources))}"
    yield "\n".join([f"<details><summary>{title}</summary><ul>", *kept, *more, "</ul></details>"])


def _inputs(inputs: Sequence[str]) -> str:
    return f": {_names(inputs, most=6)}" if inputs else ""


def _warnings(plan: Plan, limit_bytes: int) -> Iterator[str]:
    if plan.warnings:
        listed = _list("Warnings", plan.warnings, int(limit_bytes * _LIST_SHARE))
        count = "1 warning" if len(plan.warnings) == 1 else f"{len(plan.warnings)} warnings"
        yield f"<details><summary>{count}</summary>\n{listed}\n</details>"


def _last_line(plan: Plan, details_url: str) -> str:
    said = []
    if plan.digest:
        said.append(
            f"Plan <code>{plan.digest}</code>: set this as <code>fleet:requirePlan</code>,"
            " and <code>up</code> runs no other plan."
        )
    if is_web_address(details_url):
        said.append(f'<a href="{escape.html(details_url)}">Full plan</a>')
    return f"<p>{' '.join(said)}</p>" if said else ""


def is_web_address(url: str) -> bool:
    """Whether it is a plain address of the web, for a link of our own."""
    parts = urlsplit(url)
    return parts.scheme in {"http", "https"} and bool(parts.netloc) and len(url) <= 500 and url.isprintable()
