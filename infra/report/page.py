"""A plan as one page of HTML that needs nothing else: no script, no font, no picture, nothing from any network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from infra.report import escape, words
from infra.report.model import Change, HostPlan, Plan
from infra.report.words import HostGroup

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_KINDS = {"+": "added", "-": "gone", "@": "place"}

_STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --dim: #59636e; --line: #d1d9e0; --back: #fff; --band: #f6f8fa;
  --added: #dafbe1; --gone: #ffebe9; --place: #ddf4ff; --bad: #cf222e; --warn: #9a6700; --good: #1a7f37; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --dim: #9198a1; --line: #3d444d; --back: #0d1117;
  --band: #151b23; --added: #12361f; --gone: #42171a; --place: #0c2d4d; --bad: #ff7b72; --warn: #d29922;
  --good: #3fb950; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px 16px 64px; max-width: 1100px; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 32px 0 8px; }
code, pre { font: 13px/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { overflow-wrap: anywhere; }
.lead { color: var(--dim); margin: 0 0 16px; }
.failed { border-left: 4px solid var(--bad); padding: 4px 12px; background: var(--band); }
.needs { border-left: 4px solid var(--warn); padding: 4px 12px; background: var(--band); }
.table { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 6px 12px; border-top: 1px solid var(--line); }
tr:first-child th { border-top: 0; background: var(--band); font-weight: 600; }
td:nth-child(3) { min-width: 220px; } td:nth-child(4) { min-width: 120px; }
td:nth-child(-n+2), td:nth-child(-n+2) code { white-space: nowrap; }
.urgent { color: var(--bad); } .warn { color: var(--warn); } .good { color: var(--good); } .dim { color: var(--dim); }
details { border: 1px solid var(--line); border-radius: 6px; margin: 8px 0; }
summary { cursor: pointer; padding: 8px 12px; background: var(--band); border-radius: 6px; }
details[open] > summary { border-bottom: 1px solid var(--line); border-radius: 6px 6px 0 0; }
details > p { margin: 8px 12px; }
pre { margin: 0; padding: 8px 0; overflow-x: auto; }
pre span { display: block; padding: 0 12px; min-width: max-content; white-space: pre; }
pre span:empty::after { content: " "; }
.added { background: var(--added); } .gone { background: var(--gone); } .place { background: var(--place); }
ul { margin: 8px 0; padding-left: 24px; } li { margin: 4px 0; }
""".strip()


def page(plan: Plan) -> str:
    """The whole page."""
    title = f"Plan for {escape.html(escape.one_line(plan.stack, longest=100))}"
    groups = words.grouped(plan.hosts)
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="lead">{escape.html(words.headline(plan))}</p>',
        *_lists(plan),
        *_hosts(plan),
        *_differences(groups),
        *_resources(plan),
    ]
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{title}</title><style>\n{_STYLE}\n</style></head><body>"
    )
    return "\n".join([head, *parts, "</body></html>"]) + "\n"


def _lists(plan: Plan) -> Iterator[str]:
    for kind, heading, texts in (
        ("failed", "Why the preview failed", plan.errors),
        ("needs", "<code>up</code> still needs", plan.blockers),
        ("needs", "Said by the preview", plan.warnings),
    ):
        if texts:
            items = "".join(f"<li>{_code(text)}</li>" for text in texts)
            yield f'<div class="{kind}"><strong>{heading}</strong><ul>{items}</ul></div>'


def _hosts(plan: Plan) -> Iterator[str]:
    if not plan.hosts:
        return
    yield "<h2>Hosts</h2>"
    if not plan.lists_hosts:
        yield '<p class="lead">This preview does not say of every host how it stands.</p>'
    yield '<div class="table"><table>'
    yield "<tr><th>host</th><th>state</th><th>what <code>up</code> changes</th><th>why</th></tr>"
    yield from (
        _row(host) for host in sorted(plan.hosts, key=lambda host: (words.label(host).rank, host.name))
    )
    yield "</table></div>"


def _row(host: HostPlan) -> str:
    changed = ", ".join(_code(change.path) for change in host.changes)
    what = f"{len(host.changes)}: {changed}" if host.changes else _code(host.message) if host.message else ""
    why = escape.html(escape.one_line(words.reason(host)))
    return f"<tr><td>{_code(host.name)}</td><td>{_state(host)}</td><td>{what}</td><td>{why}</td></tr>"


def _state(host: HostPlan) -> str:
    shown = words.label(host)
    kind = (
        "urgent"
        if shown.rank <= 2
        else "warn"
        if shown.rank <= 5
        else "good"
        if shown is words.SAME
        else "dim"
    )
    return f'<span class="{kind}">{shown.sign} {shown.word}</span>'


def _differences(groups: Sequence[HostGroup]) -> Iterator[str]:
    shown = [group for group in groups if group.plan.changes]
    if shown:
        yield "<h2>Differences</h2>"
    for group in shown:
        names = ", ".join(map(_code, group.names[:3]))
        more = f" and {len(group.names) - 3} more" if len(group.names) > 3 else ""
        yield f"<details><summary>{names}{more}: {_state(group.plan)},"
        yield f"{words.counted_changes(group.plan)}</summary>"
        if more:
            yield f"<p>{', '.join(map(_code, group.names))}</p>"
        yield from (_difference(change, group.plan) for change in group.plan.changes)
        yield "</details>"


def _difference(change: Change, host: HostPlan) -> str:
    text = escape.visible(words.diff_text(change, host=host))
    return f"<pre>{''.join(map(_line, text.split(chr(10))))}</pre>"


def _line(line: str) -> str:
    kind = "" if line.startswith(("--- ", "+++ ")) else _KINDS.get(line[:1], "")
    return f'<span class="{kind}">{escape.html(line)}</span>' if kind else f"<span>{escape.html(line)}</span>"


def _resources(plan: Plan) -> Iterator[str]:
    if not plan.resources:
        return
    yield "<h2>Resources</h2>"
    yield f"<details><summary>{', '.join(words.counted_resources(plan.resources))}</summary><ul>"
    for resource in plan.resources:
        inputs = f": {', '.join(map(_code, resource.inputs))}" if resource.inputs else ""
        yield f"<li>{resource.operation} {_code(resource.name)}{inputs}</li>"
    yield "</ul></details>"


def _code(text: str) -> str:
    return escape.code(text, longest=2000)
