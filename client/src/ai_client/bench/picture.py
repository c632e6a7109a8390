"""A run as a picture: an HTML page with drawings in it, that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ai_client.bench.measure import Sample, Summary

WIDTH, HEIGHT, EDGE, TOP = 720, 280, 40, 60
COLOURS = 4
# Drawings keep their proportions, so that in a narrow window their texts and dots have to be larger.
_STYLE = (
    ":root{color-scheme:light dark;--ink:#1c2430;--dim:#5d6b7e;--line:#d9e0e8;--page:#fff;--failed:#d1242f;"
    "--run0:#2f6fde;--run1:#b7791f;--run2:#1a7f4b;--run3:#7a4fbf}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6ebf2;--dim:#93a1b5;--line:#2c3643;--page:#10151c;"
    "--failed:#ff7b72;--run0:#6ea8ff;--run1:#e3b04b;--run2:#4cc38a;--run3:#b392f0}}"
    "body{font:14px/1.5 system-ui,sans-serif;margin:24px;color:var(--ink);background:var(--page);"
    "overflow-wrap:anywhere}"
    "table{border-collapse:collapse;margin:12px 0}td,th{padding:4px 14px 4px 0;text-align:right}"
    "th:first-child,td:first-child{text-align:left;white-space:nowrap}tr{border-bottom:1px solid var(--line)}"
    ".run{display:inline-block;margin-right:20px}"
    "svg{border:1px solid var(--line);border-radius:6px;margin:4px 12px 12px 0;max-width:100%;height:auto;"
    "box-sizing:border-box}text{font-size:12px;fill:var(--dim)}"
    "@media(max-width:640px){body{margin:16px}text{font-size:22px}circle{r:4px}}"
)

_FAILED = 'fill="none" stroke="var(--failed)" stroke-width="1.5"'

Run = tuple[Summary, Sequence[Sample]]


def page(title: str, runs: Sequence[Run], verdicts: Sequence[str]) -> str:
    """The whole page."""
    legend = " ".join(
        f'<span class="run"><span style="color:{_colour(number)}">&#9632;</span> {escape(summary.provider)}</span>'
        for number, (summary, _) in enumerate(runs)
    )
    return (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1><p>{legend}</p>{_table(runs)}"
        f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in verdicts)}</ul>"
        f"{_distribution(runs)}{_timeline(runs)}</html>\n"
    )


def _colour(number: int) -> str:
    return f"var(--run{number % COLOURS})"


def _table(runs: Sequence[Run]) -> str:
    names = [name for name in Summary.__dataclass_fields__ if name not in ("provider", "errors")]
    heads = "".join(f"<th>{escape(summary.provider)}</th>" for summary, _ in runs)
    rows = []
    for name in names:
        values = [getattr(summary, name) for summary, _ in runs]
        cells = "".join(f"<td>{'–' if value is None else format(value, '.6g')}</td>" for value in values)
        rows.append(f"<tr><td>{name}</td>{cells}</tr>")
    return f"<table><tr><th></th>{heads}</tr>{''.join(rows)}</table>"


def _distribution(runs: Sequence[Run]) -> str:
    """Which share of the answers came within which time."""
    longest_s = max((sample.took_s for _, samples in runs for sample in samples if sample.is_ok), default=1.0)
    lines = []
    for number, (_, samples) in enumerate(runs):
        ordered = sorted(sample.took_s for sample in samples if sample.is_ok)
        points = " ".join(
            f"{_x(took_s / longest_s):.1f},{_y((rank + 1) / len(ordered)):.1f}"
            for rank, took_s in enumerate(ordered)
        )
        lines.append(f'<polyline fill="none" stroke="{_colour(number)}" stroke-width="2" points="{points}"/>')
    return _frame("Share of answers by response time", "".join(lines), f"{1000 * longest_s:.0f} ms", "100 %")


def _timeline(runs: Sequence[Run]) -> str:
    """When each request was sent, and how long it took; failures as red rings."""
    everything = [sample for _, samples in runs for sample in samples]
    last_s = max((sample.began_s for sample in everything), default=1.0) or 1.0
    longest_s = max((sample.took_s for sample in everything), default=1.0) or 1.0
    dots = []
    for number, (_, samples) in enumerate(runs):
        for sample in samples:
            x, y = _x(sample.began_s / last_s), _y(sample.took_s / longest_s)
            shown = f'fill="{_colour(number)}" fill-opacity="0.6"' if sample.is_ok else _FAILED
            dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" {shown}/>')
    has_failures = any(not sample.is_ok for sample in everything)
    title = "Response time of each request" + (" (red rings: failures)" if has_failures else "")
    return _frame(title, "".join(dots), f"{last_s:.1f} s", f"{1000 * longest_s:.0f} ms")


def _x(share: float) -> float:
    return EDGE + share * (WIDTH - 2 * EDGE)


def _y(share: float) -> float:
    return HEIGHT - EDGE - share * (HEIGHT - EDGE - TOP)


def _frame(title: str, drawn: str, right: str, top: str) -> str:
    axes = f"M{EDGE},{TOP}V{HEIGHT - EDGE}H{WIDTH - EDGE}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{escape(title)}"><text x="{EDGE}" y="22">{escape(title)}</text>'
        f'<path d="{axes}" fill="none" stroke="var(--dim)"/>'
        f'<text x="{EDGE}" y="{HEIGHT - 14}">0</text>'
        f'<text x="{WIDTH - EDGE}" y="{HEIGHT - 14}" text-anchor="end">{escape(right)}</text>'
        f'<text x="{EDGE}" y="{TOP - 8}">{escape(top)}</text>{drawn}</svg>'
    )
