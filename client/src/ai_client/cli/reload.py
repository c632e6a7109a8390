"""`ai-client reload`: returns when the service has the new key and configuration, or says why it kept the old."""

from __future__ import annotations

import argparse
import json
import sys

from ai_client.cli.host import socket_of
from ai_client.cli.service_socket import ServiceUnreachableError, ask
from ai_client.settings import ConfigError

RELOAD_TIMEOUT_S = 30.0
EXIT_RESTART_NEEDED = 3


def run(options: argparse.Namespace) -> int:
    """0 where the service now uses what is on disk, 3 where a part needs a restart, else 1."""
    try:
        status, answer = ask(socket_of(options), "POST", "/control/reload", timeout_s=RELOAD_TIMEOUT_S)
    except (ServiceUnreachableError, ConfigError) as exc:
        status, answer = 0, {"ok": False, "error": str(exc)}
    if options.json:
        print(json.dumps(answer))
    elif answer.get("restart_needed"):
        changed = ", ".join(answer.get("changed", ()))
        print(f"some changes ({changed}) need a restart", file=sys.stderr)
    elif status == 200:
        print(f"reloaded: {', '.join(answer.get('changed', ())) or 'nothing had changed'}")
    else:
        error = answer.get("error")
        reason = error.get("message") if isinstance(error, dict) else error
        # Without a service there is no old configuration.
        head = "not reloaded, the old configuration stays in use:\n" if status else ""
        print(f"{head}{reason}", file=sys.stderr)
    if status != 200:
        return 1
    return EXIT_RESTART_NEEDED if answer.get("restart_needed") else 0
