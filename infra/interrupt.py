"""The engine interrupts its program once a resource has failed."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn

_INTERRUPTED = 128 + signal.SIGINT


def end_quietly_on_interrupt() -> None:
    """Ends this process at once on SIGINT: the engine has told what failed, and a traceback would bury that."""
    signal.signal(signal.SIGINT, _end)


def _end(_signum: int, _frame: FrameType | None) -> NoReturn:
    os._exit(_INTERRUPTED)
