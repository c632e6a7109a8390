"""From a host's answer to the result of the task."""

from collections.abc import Mapping
from typing import Any

FACTS = ("release", "config_digest", "key_fingerprint", "key_next_fingerprint", "claim", "journal")


def from_answer(answer: Mapping[str, Any], *, diff: bool) -> dict[str, Any]:
    """The task's result. `diff` is in Ansible's own form, so that `--diff` shows it."""
    result = {
        "changed": answer["changed"],
        "failed": answer["failed"],
        "msg": answer["message"],
        "actions": answer["actions"],
        "changed_paths": [change["path"] for change in answer["changes"]],
        "health": answer["health"],
        "rolled_back": answer["rolled_back"],
        "watched": answer["watched"],
        "tried_keys": answer["tried_keys"],
        "notes": answer.get("notes") or [],
        **{name: answer["state"][name] for name in FACTS},
    }
    if diff:
        result["diff"] = [
            {
                "before_header": change["path"],
                "after_header": change["path"],
                "before": change["before"],
                "after": change["after"],
            }
            for change in answer["changes"]
        ]
    return result
