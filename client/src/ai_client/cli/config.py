"""`ai-client config check`: every fault of the file, with its line and what to do."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any
from urllib.parse import urlsplit

from ai_client.cli.host import DEFAULT_CONFIG, config_of
from ai_client.settings import ConfigError, KeyMissingError, UpstreamSettings, load


def run(options: argparse.Namespace) -> int:
    """0 where the file is right, else 1."""
    path = config_of(options) or DEFAULT_CONFIG
    try:
        settings = load(path)
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
    upstreams = [_upstream(each) for each in settings.upstreams]
    if options.json:
        print(json.dumps({"ok": True, "file": str(path), "upstreams": upstreams}))
        return 0
    print(f"{path}: ok")
    for each in upstreams:
        key = each["trouble"] or f"key {each['key']}"
        models = f"{each['models']} models" if each["models"] else "any model"
        print(f"upstream {each['name']} ({each['host']}, {each['dialect']}, {models}): {key}")
    return 0


def _upstream(settings: UpstreamSettings) -> dict[str, Any]:
    """What is declared, and which key would sign, as far as this user may see it."""
    from ai_client.configure.sources import keys_of  # noqa: PLC0415  not needed where the file is wrong

    key = trouble = None
    try:
        key = keys_of(settings, os.environ).current.fingerprint
    except KeyMissingError as exc:
        trouble = str(exc)
    return {
        "name": settings.name,
        "host": urlsplit(settings.base_url).netloc.rpartition("@")[2],
        "dialect": settings.dialect,
        "models": len(settings.models),
        "key": key,
        "trouble": trouble,
    }
