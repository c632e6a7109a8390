"""`ai-client config check`: every fault of the file, with its line and what to do."""

from __future__ import annotations

import argparse
import json
import sys

from ai_client.settings import ConfigError, load


def run(options: argparse.Namespace) -> int:
    """0 where the file is right, else 1."""
    try:
        load(options.config)
    except ConfigError as exc:
        if options.json:
            problems = [
                {
                    "line": problem.line,
                    "section": problem.section,
                    "key": problem.key,
                    "reason": problem.reason,
                    "remedy": problem.remedy,
                }
                for problem in exc.problems
            ]
            print(json.dumps({"ok": False, "file": exc.path, "problems": problems}))
        else:
            print(exc, file=sys.stderr)
        return 1
    print(
        json.dumps({"ok": True, "file": str(options.config)}) if options.json else f"{options.config}: fine"
    )
    return 0
