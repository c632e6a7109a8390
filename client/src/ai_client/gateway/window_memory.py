"""Keeps the rate window over restarts and kills: each request is noted on disk as it is sent."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ai_client import logs
from ai_client.events import Admitted, Event, Failed, Sent, Settled
from ai_client.state import SentLog

FOLDER = "window"
WINDOW_S = 61.0
# 16 bytes each; a host that may send more has no limit that needs remembering.
MOST_SLOTS = 1_000_000
_MARGIN = 1.2
_SPARE = 100

_log = logging.getLogger(__name__)


class WindowMemory:
    """A listener of the event stream."""

    def __init__(self, state: Path, *, limit_rpm: int, counts_tokens: bool) -> None:
        self._sent_log: SentLog | None = None
        # Where tokens have no limit, nobody asks what a request really used.
        self._counts_tokens = counts_tokens
        self._reserved: dict[str, int] = {}
        self._sent: dict[str, tuple[int, float]] = {}
        slots = int(limit_rpm * _MARGIN) + _SPARE
        if slots > MOST_SLOTS:
            return
        try:
            self._sent_log = SentLog(state / FOLDER, slots=slots)
        except OSError as exc:
            # The service is worth more than its memory of the last minute.
            _log.error("window_not_kept", extra=logs.fields({"reason": str(exc)}))

    def load(self, *, now_s: float) -> dict[str, Any]:
        """What this and other processes sent in the last minute, for `AIAPIClient.restore`."""
        return {} if self._sent_log is None else self._sent_log.snapshot(since_s=now_s - WINDOW_S)

    @property
    def kinds(self) -> tuple[type[Any], ...]:
        """What it listens to."""
        if self._sent_log is None:
            return ()
        return (Admitted, Sent, Settled, Failed) if self._counts_tokens else (Sent,)

    def __call__(self, event: Event) -> None:
        """The listener."""
        if self._sent_log is None:
            return
        if isinstance(event, Sent):
            tokens = self._reserved.pop(event.request_id, 0)
            slot = self._sent_log.sent(at_s=event.at, tokens=tokens)
            if self._counts_tokens:
                self._sent[event.request_id] = (slot, event.at)
        elif not self._counts_tokens:
            return
        elif isinstance(event, Admitted):
            self._reserved[event.request_id] = event.reserved_tokens
        elif isinstance(event, Settled | Failed):
            self._ended(event)

    def _ended(self, event: Settled | Failed) -> None:
        self._reserved.pop(event.request_id, None)
        sent = self._sent.pop(event.request_id, None)
        usage = event.usage if isinstance(event, Settled) else None
        if sent is not None and usage is not None and self._sent_log is not None:
            self._sent_log.settle(sent[0], at_s=sent[1], tokens=usage.total_tokens)

    def close(self) -> None:
        """Leaves the files to the next process."""
        if self._sent_log is not None:
            self._sent_log.close()
            self._sent_log = None
