"""What can go wrong while the engine is settled."""

from __future__ import annotations

import errno
import os


class EngineError(Exception):
    """Names culprit, reason and remedy; shown to the user as one message, without traceback."""

    def __init__(self, culprit: str, *, reason: str, remedy: str) -> None:
        super().__init__(f"{culprit}: {reason}; {remedy}")
        self.culprit = culprit
        self.reason = reason
        self.remedy = remedy


def disk_error(error: OSError, *, folder: str | os.PathLike[str]) -> EngineError:
    """The error of a write below `folder`, with the remedy that fits its cause."""
    remedy = "name a folder that can be written with XDG_CACHE_HOME"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free 3 GB there, or name another folder with XDG_CACHE_HOME"
    return EngineError(os.fspath(folder), reason=error.strerror or str(error), remedy=remedy)
