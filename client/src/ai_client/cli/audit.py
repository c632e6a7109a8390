"""`ai-client audit verify`: whether the trail is what was written."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ai_client.audit_chain import verify
from ai_client.settings import ConfigError, Settings, load


def run(options: argparse.Namespace) -> int:
    """0 where no line was changed or removed, 1 where one was, 2 where the trail can't be read."""
    folder = options.folder or _folder(options.config)
    try:
        report = verify(folder)
    except OSError as exc:
        remedy = "run it as root or as a member of the group ai-client, or name the folder with --folder"
        print(f"the audit trail in {folder} can't be read ({exc.strerror}); {remedy}", file=sys.stderr)
        return 2
    if options.json:
        problems = [
            {"file": problem.file, "line": problem.line, "reason": problem.reason}
            for problem in report.problems
        ]
        told = {"ok": not problems, "first_file": report.first_file, "lines": report.lines}
        print(json.dumps({**told, "problems": problems}))
    else:
        for problem in report.problems:
            where = f"{problem.file}:{problem.line}" if problem.line else problem.file
            print(f"{where}: {problem.reason}", file=sys.stderr)
        state = "NOT as it was written" if report.problems else "as it was written"
        print(f"{report.lines} lines from {report.first_file or 'no file'} on: {state}")
    return 1 if report.problems else 0


def _folder(config: Path) -> Path:
    try:
        return load(config).logging.log_dir
    except ConfigError:
        return Settings().logging.log_dir
