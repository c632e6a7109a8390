"""`ai-client fleet`: the hosts that share the quota, as each says of itself, and those that are gone for good."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any
from urllib.parse import quote

from ai_client.cli.host import socket_of
from ai_client.cli.parser import EXIT_USAGE
from ai_client.cli.service_socket import ServiceUnreachableError, ask
from ai_client.cli.table import table
from ai_client.settings import ConfigError

TIMEOUT_S = 20.0
EXIT_STILL_HERE = 3
#: A host calls every 16 s; one that said nothing for so long is silent.
SILENT_S = 60


def run(options: argparse.Namespace) -> int:
    """0, 1 where the service or the engine does not answer, 2 for what is no name, or 3 where a host can't be forgotten
    yet.
    """
    method, target = "GET", "/fleet.json"
    if options.forget is not None:
        if not options.forget.isprintable() or not options.forget.strip():
            print(
                f"--forget: {options.forget!r}: write a host's name, as `ai-client fleet` shows it",
                file=sys.stderr,
            )
            return EXIT_USAGE
        method, target = "POST", f"/control/forget?host={quote(options.forget, safe='')}"
    try:
        status, answer = ask(socket_of(options), method, target, timeout_s=TIMEOUT_S)
    except (ServiceUnreachableError, ConfigError) as exc:
        status, answer = 0, {"error": str(exc)}
    if options.json:
        print(json.dumps(answer))
    if status != 200:
        if not options.json:
            print(reason_of(answer), file=sys.stderr)
        return 1
    if options.forget is not None:
        return _forgotten(options, answer)
    if not options.json:
        print(as_text(answer["hosts"]))
    return 0


def _forgotten(options: argparse.Namespace, answer: dict[str, Any]) -> int:
    is_out = bool(answer.get("forgotten"))
    if not is_out and not options.json:
        remedy = "stop its service, wait two minutes, and try again"
        print(f"{options.forget} may still use its share; {remedy}", file=sys.stderr)
    elif not options.json and not answer.get("was_known", True):
        known = ", ".join(answer["known"]) or "none"
        # It may be on the roster of a shared budget all the same, whose engine was emptied.
        print(f"{options.forget} is forgotten; none of that name has reported, but these have: {known}")
    elif not options.json:
        print(f"{options.forget} is forgotten")
    return 0 if is_out else EXIT_STILL_HERE


def reason_of(answer: dict[str, Any]) -> str:
    """Why there is none, from an answer that is none."""
    error = answer.get("error")
    return str(error.get("message") if isinstance(error, dict) else error)


def as_text(hosts: list[dict[str, Any]]) -> str:
    """A table, then what is wrong where something is."""
    if not hosts:
        return "no host has reported yet; each does every 16 s, also after the engine was emptied"
    rows = [
        (
            each["host"],
            _health(each),
            each["version"],
            each["release"][:12],
            each["config"][:12],
            each["key"],
            each["files"],
            each["mode"],
            *(str(each[name]) for name in ("rpm", "requests", "errors", "throttled", "age_s")),
        )
        for each in hosts
    ]
    heads = (
        "host", "health", "version", "release", "config", "key", "files", "quota",
        "rpm", "requests", "errors", "429s", "age s",
    )  # fmt: skip
    troubles = [f"{each['host']}: {each['trouble']}" for each in hosts if each["trouble"]]
    return "\n".join([table(heads, rows, left=8), *troubles])


def _health(each: dict[str, Any]) -> str:
    if each["age_s"] > SILENT_S:
        return "silent"
    return "ok" if each["is_well"] else "FAIL"
