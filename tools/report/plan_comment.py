"""Renders a preview for people: `tools/plan-comment preview.json --comment comment.md --html plan.html`.

Reads what `PULUMI_ENABLE_STREAMING_JSON_PREVIEW=1 pulumi preview --json` printed, from a file or standard input, and
writes one Markdown comment for a pull request, and a page. Without either option the comment goes to standard output.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from infra.errors import FleetError
from infra.report.markdown import LIMIT_BYTES, SMALLEST_LIMIT_BYTES, comment
from infra.report.model import Plan
from infra.report.page import page
from infra.report.reading import read

CHANGES, UNREADABLE = 1, 2


def main(argv: list[str]) -> int:
    """Exit status 0; 1 with --exit-code where `up` would change something; 2 where the preview cannot be read."""
    options = _parser().parse_args(argv)
    if options.limit < SMALLEST_LIMIT_BYTES:
        print(
            f"plan-comment: --limit {options.limit}: too small; give at least {SMALLEST_LIMIT_BYTES}",
            file=sys.stderr,
        )
        return UNREADABLE
    status = 0
    try:
        plan = read(_text(options.preview))
        # A failed preview may not name its stack, and that of a pull request may name any.
        plan = dataclasses.replace(plan, stack=options.stack or plan.stack)
    except (FleetError, OSError) as error:
        # A comment there must be all the same: the one of an earlier push would be taken for this one's.
        said = (
            f"{error.filename} can't be read ({error.strerror})" if isinstance(error, OSError) else str(error)
        )
        print(f"plan-comment: {said}", file=sys.stderr)
        plan, status = Plan(stack=options.stack, errors=(said,), is_finished=False), UNREADABLE
    _write(plan, options)
    return status or (CHANGES if options.exit_code and plan.changes_something else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/plan-comment", description=__doc__.split("\n")[0])
    parser.add_argument("preview", nargs="?", default="-", help="file with the preview; - is standard input")
    parser.add_argument("--comment", metavar="FILE", help="write the Markdown comment here")
    parser.add_argument("--html", metavar="FILE", help="write the page here")
    parser.add_argument(
        "--outputs",
        metavar="FILE",
        help="add the lines changes=true|false and digest=… to this file, for later steps",
    )
    parser.add_argument("--stack", default="", help="the stack's name [the one that the preview names]")
    parser.add_argument(
        "--details-url", default="", help="where the page can be found, for the comment's last line"
    )
    parser.add_argument(
        "--limit", type=int, default=LIMIT_BYTES, help="longest comment, in bytes [%(default)s]"
    )
    parser.add_argument(
        "--exit-code", action="store_true", help="end with 1 where `up` would change something"
    )
    return parser


def _text(name: str) -> str:
    data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    return data.decode(errors="replace")


def _write(plan: Plan, options: argparse.Namespace) -> None:
    text = comment(plan, details_url=options.details_url, limit_bytes=options.limit)
    if options.comment:
        Path(options.comment).write_text(text, encoding="utf-8")
    if options.html:
        Path(options.html).write_text(page(plan), encoding="utf-8")
    if options.outputs:
        with Path(options.outputs).open("a", encoding="utf-8") as file:
            file.write(f"changes={str(plan.changes_something).lower()}\ndigest={plan.digest}\n")
    if not (options.comment or options.html):
        sys.stdout.write(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
