"""Writes one JSON line for each host's result of an `ai_client_apply` task, for programs to read."""

from __future__ import annotations

import difflib
import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: fleet_results
type: notification
short_description: one JSON line for each host
description:
  - Appends a line with the host's outcome to the file that the environment names; does nothing without it.
  - Nothing in it is secret.
requirements: [an entry in C(callbacks_enabled)]
options: {}
"""

_VARIABLE = "AI_CLIENT_FLEET_RESULTS"
_TASK = "ai_client_apply"
_COPIED = ("actions", "changed_paths", "health", "rolled_back", "release", "config_digest", "key_fingerprint")
_COPIED_TOO = ("key_next_fingerprint", "claim", "journal", "watched", "tried_keys")


class CallbackModule(CallbackBase):
    """The callback; `duration_s` counts from when the host's worker started."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "fleet_results"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._started_s: dict[str, float] = {}
        self._path = os.environ.get(_VARIABLE, "")
        self.disabled = not self._path

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """A host begins."""
        self._started_s[host.get_name()] = time.monotonic()

    def v2_runner_on_ok(self, result: Any) -> None:
        """A host is done."""
        self._write(result, outcome={"failed": False, "unreachable": False})

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A host failed."""
        self._write(result, outcome={"failed": True, "unreachable": False})

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A host was not reached, whatever the task."""
        self._write(result, outcome={"failed": False, "unreachable": True})

    def _write(self, result: Any, *, outcome: dict[str, bool]) -> None:
        if result.task.action.rpartition(".")[2] != _TASK and not outcome["unreachable"]:
            return
        host = result.host.get_name()
        values = dict(result.result)
        line = {
            "host": host,
            **outcome,
            "changed": bool(values.get("changed")),
            "message": str(values.get("msg") or ""),
            "duration_s": round(time.monotonic() - self._started_s.get(host, time.monotonic()), 3),
            **{name: values.get(name) for name in _COPIED + _COPIED_TOO},
            "diffs": [_with_text(entry) for entry in values.get("diff") or []],
        }
        with Path(self._path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _with_text(entry: dict[str, str]) -> dict[str, str]:
    """A difference with its unified diff."""
    path, before, after = entry["after_header"], entry["before"], entry["after"]
    lines = difflib.unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        f"{path} (host)",
        f"{path} (declared)",
    )
    text = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
    return {"path": path, "before": before, "after": after, "diff": text}
