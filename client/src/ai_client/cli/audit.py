"""`ai-client audit verify`: whether the trail is what was written."""

from __future__ import annotations

import argparse
import json
import sys

from ai_client.audit.chain import Anchor, AuditReport, parse_anchor, verify
from ai_client.cli.host import usable_settings

_EARLIER_LIFE = (
    "anchors of an earlier installation on this host don't belong to this trail: where it was set up anew, give only "
    "those since then (journalctl --since)"
)


def run(options: argparse.Namespace) -> int:
    """0 where no line was changed or removed, 1 where one was, 2 where the trail can't be read."""
    folder = options.folder or usable_settings(options).logging.log_dir
    try:
        anchors = _anchors(options)
        report = verify(folder, anchors)
    except UnicodeDecodeError:
        print(f"{options.anchors} is not UTF-8 text; name a file of anchors", file=sys.stderr)
        return 2
    except ValueError as exc:
        print(f"the anchor {exc}; take it from the service's log (audit_anchor)", file=sys.stderr)
        return 2
    except OSError as exc:
        remedy = "name the folder with --folder"
        if isinstance(exc, PermissionError):
            remedy = "run it as root or as a member of the group ai-client, or name the folder with --folder"
        print(f"the audit trail in {folder} can't be read ({exc.strerror}); {remedy}", file=sys.stderr)
        return 2
    (_print_json if options.json else _print_text)(report, len(anchors))
    return 1 if report.problems else 0


def _print_json(report: AuditReport, anchors: int) -> None:
    problems = [
        {"file": problem.file, "line": problem.line, "reason": problem.reason} for problem in report.problems
    ]
    told = {"ok": not problems, "first_file": report.first_file, "lines": report.lines, "anchors": anchors}
    print(json.dumps({**told, "problems": problems}))


def _print_text(report: AuditReport, anchors: int) -> None:
    for problem in report.problems:
        where = f"{problem.file}:{problem.line}" if problem.line else problem.file
        print(f"{where}: {problem.reason}", file=sys.stderr)
    if any(problem.file == "anchor" for problem in report.problems):
        print(_EARLIER_LIFE, file=sys.stderr)
    state = "NOT as it was written" if report.problems else "as it was written"
    held = f", and {anchors} anchors hold" if anchors and not report.problems else ""
    print(f"{report.lines} lines from {report.first_file or 'no file'} on: {state}{held}")


def _anchors(options: argparse.Namespace) -> list[Anchor]:
    """Those of the command line, and of a file of them. Raises ValueError, OSError."""
    texts = list(options.anchor)
    if options.anchors is not None:
        with sys.stdin if str(options.anchors) == "-" else options.anchors.open(encoding="utf-8") as lines:
            texts += [line for line in lines if line.strip()]
    return [parse_anchor(text) for text in texts]
