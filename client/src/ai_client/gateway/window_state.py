"""What counts in the rate window, kept on disk, so that a restart opens no second one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAME = "limits.json"


class WindowState:
    """One file, replaced whole. It is not synced: what a power cut loses is over when the machine is up again."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME

    def save(self, snapshot: dict[str, Any]) -> None:
        """Put it on disk. Raises OSError."""
        partial = self._path.with_name(f"{NAME}.partial")
        partial.write_text(json.dumps(snapshot, separators=(",", ":")))
        partial.replace(self._path)

    def load(self) -> dict[str, Any]:
        """What was saved last; nothing where that can't be read."""
        try:
            state = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}
