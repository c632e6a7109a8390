"""The host's own record of the runs that changed it: one JSON line each, the newest last."""

import json
from typing import TYPE_CHECKING, Any

from . import places
from .masking import mask
from .tree import Tree

if TYPE_CHECKING:
    from .response import Response

_KEPT_LINES = 500


def line(response: "Response", *, time: str, run: str) -> dict[str, Any]:
    """The record of a run."""
    result = "rolled back" if response.rolled_back else "failed" if response.failed else "ok"
    return {
        "time": time,
        "run": run,
        "result": result,
        "reason": mask(response.message),
        "release": response.state.release,
        "config_digest": response.state.config_digest,
        "key_fingerprint": response.state.key_fingerprint,
        "key_next_fingerprint": response.state.key_next_fingerprint,
        "changed": [change.path for change in response.changes],
    }


def append(tree: Tree, record: dict[str, Any]) -> None:
    """Adds a record; the oldest go where there are too many."""
    lines = (tree.read(places.JOURNAL) or b"").splitlines()[1 - _KEPT_LINES :]
    lines.append(json.dumps(record).encode())
    tree.write(places.JOURNAL, b"\n".join(lines) + b"\n", gid=0, mode=0o600)


def newest(tree: Tree) -> dict[str, Any] | None:
    """The last record; None where there is none."""
    lines = (tree.read(places.JOURNAL) or b"").splitlines()
    if not lines:
        return None
    try:
        record = json.loads(lines[-1])
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
