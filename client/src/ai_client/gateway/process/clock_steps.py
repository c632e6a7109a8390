"""Notices that somebody set the wall clock, so that what is on disk by its time is written anew."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ai_client.platform import json_log
from ai_client.platform.clock import Clock

#: Less is drift: what is remembered for a minute has a margin for it.
LEAST_STEP_S = 0.5

_log = logging.getLogger(__name__)


class ClockSteps:
    """Asked again and again. `on_step` is told by how many seconds the clock went forward, or back."""

    def __init__(self, clock: Clock, on_step: Sequence[Callable[[float], None]]) -> None:
        self._clock, self._on_step = clock, on_step
        self._offset_s = clock.wall() - clock.monotonic()

    def look(self) -> None:
        """Has the clock been set?"""
        offset_s = self._clock.wall() - self._clock.monotonic()
        step_s = offset_s - self._offset_s
        if abs(step_s) < LEAST_STEP_S:
            return
        self._offset_s = offset_s
        _log.warning("clock_was_set", extra=json_log.fields({"by_s": round(step_s, 3)}))
        for tell in self._on_step:
            tell(step_s)
