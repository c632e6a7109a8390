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
  - It holds no key; differences and messages may show what else is secret on a host. infra gives a file in memory.
requirements: [an entry in C(callbacks_enabled)]
options: {}
"""

_VARIABLE = "AI_CLIENT_FLEET_RESULTS"
_TASK = "ai_client_apply"
_COPIED = ("actions", "changed_paths", "health", "rolled_back", "release", "config_digest", "key_fingerprint")
_COPIED_TOO = ("key_next_fingerprint", "claim", "journal", "watched", "tried_keys", "notes")


class CallbackModule(CallbackBase):
    """The callback; `duration_s` counts from when the host's worker started."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "fleet_results"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._started_s: dict[str, float] = {}
        self._written: dict[str, dict[str, Any]] = {}
        self._other_faults: dict[str, str] = {}
        self._path = os.environ.get(_VARIABLE, "")
        self.disabled = not self._path

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """A host begins."""
        self._started_s[host.get_name()] = time.monotonic()

    def v2_runner_on_ok(self, result: Any) -> None:
        """A host is done."""
        self._write(result, outcome={"failed": False, "unreachable": False})

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A host failed; at which task of others is told at the end, since a rescue may still come."""
        if not self._is_ours(result):
            said = dict(result.result).get("msg") or "failed"
            self._other_faults[result.host.get_name()] = f"the task {result.task.get_name()!r} failed: {said}"
            return
        self._write(result, outcome={"failed": True, "unreachable": False})

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Everything has ended: hosts that failed at another task than ours have no line yet, or one that says well."""
        for host, message in self._other_faults.items():
            before = self._written.get(host, {"changed": False, "duration_s": 0.0, "diffs": []})
            if stats.failures.get(host) and not before.get("failed"):
                fault = {"failed": True, "unreachable": False, "own_task": True, "message": message}
                self._append({"host": host, **before, **fault})

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A host was not reached, whatever the task."""
        self._write(result, outcome={"failed": False, "unreachable": True})

    @staticmethod
    def _is_ours(result: Any) -> bool:
        return str(result.task.action).rpartition(".")[2] == _TASK

    def _write(self, result: Any, *, outcome: dict[str, bool]) -> None:
        if not self._is_ours(result) and not outcome["unreachable"]:
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
        self._append(line)

    def _append(self, line: dict[str, Any]) -> None:
        self._written[line["host"]] = line
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
