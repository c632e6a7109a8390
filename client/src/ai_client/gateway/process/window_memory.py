"""Keeps the rate window over restarts and kills: each request is noted on disk as it is sent."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ai_client.admission.sent_log import SentLog, sent_since
from ai_client.contract.events import Admitted, Failed, Sent, Settled
from ai_client.platform import json_log

FOLDER = "window"
WINDOW_S = 61.0
# 16 bytes each; a host that may send more has no limit that needs remembering.
MOST_SLOTS = 1_000_000
_MARGIN = 1.2
_SPARE = 100
_AGAIN_S = 1.0

_log = logging.getLogger(__name__)


class WindowMemory:
    """Listeners of the event stream."""

    def __init__(self, state: Path, *, limit_rpm: int, counts_tokens: bool) -> None:
        self._folder = state / FOLDER
        self._sent_log: SentLog | None = None
        self._slots = 0
        # What is kept of a request until it ends, and for no longer than it counts: tokens and time of the reserve,
        # slot and time of the sending. Parts of a merged call end under ids of their own.
        self._reserved: dict[str, tuple[int, float]] = {}
        self._sent: dict[str, tuple[int, float]] = {}
        self._counts_tokens = counts_tokens
        self._wanted_slots = 0
        self._unkept: deque[tuple[float, int]] = deque()
        self._tried_at_s = 0.0
        self._is_told = False
        #: What takes each kind of event.
        self.listeners: dict[type[Any], Callable[[Any], None]] = {
            Admitted: self._note_admitted,
            Sent: self._note_sent,
            Settled: self._note_ended,
            Failed: self._note_ended,
        }
        self.reconfigure(limit_rpm=limit_rpm, counts_tokens=counts_tokens)

    def reconfigure(self, *, limit_rpm: int, counts_tokens: bool) -> None:
        """Takes new limits. A ring that would be too small for them gives way to a larger one, and loses nothing."""
        # Where tokens have no limit, nobody asks what a request really used.
        self._counts_tokens = counts_tokens
        slots = int(limit_rpm * _MARGIN) + _SPARE
        if slots <= MOST_SLOTS:
            self._wanted_slots = max(self._wanted_slots, slots)
            self._grow()

    def _grow(self) -> None:
        """Where the disk has no room, it is tried again as requests are sent."""
        if self._wanted_slots <= self._slots:
            return
        try:
            larger = SentLog(self._folder, slots=self._wanted_slots)
        except OSError as exc:
            # The service is worth more than its memory of the last minute.
            if not self._is_told:
                _log.error("window_not_kept", extra=json_log.fields({"reason": str(exc)}))
            self._is_told = True
            return
        # What the smaller one holds stays in its file, which the next process reads as well.
        self._leave()
        self._sent_log, self._slots, self._is_told = larger, self._wanted_slots, False
        for at_s, tokens in self._unkept:
            larger.sent(at_s=at_s, tokens=tokens)
        self._unkept.clear()

    def _try_again(self, now_s: float) -> None:
        if abs(now_s - self._tried_at_s) >= _AGAIN_S:
            self._tried_at_s = now_s
            self._grow()

    def load(self, *, now_s: float) -> dict[str, Any]:
        """What this and other processes sent in the last minute, for `AIAPIClient.restore`."""
        return self.sent_since(now_s - WINDOW_S)

    def sent_since(self, since_s: float) -> dict[str, Any]:
        """The same from then on, by the wall clock."""
        if self._sent_log is None and not self._wanted_slots:
            return {}
        try:
            return sent_since(self._folder, since_s)
        except OSError:
            return {}  # nobody wrote anything there, or what they wrote can't be read

    @property
    def remembered(self) -> int:
        """Of how many requests something is kept in memory."""
        return len(self._reserved) + len(self._sent)

    def _note_admitted(self, event: Admitted) -> None:
        if not (self._counts_tokens and self._wanted_slots):
            return
        self._reserved[event.request_id] = (event.reserved_tokens, event.at)
        if self._sent_log is None:
            _forget(self._reserved, now_s=event.at)

    def _note_sent(self, event: Sent) -> None:
        if self._slots < self._wanted_slots:
            self._try_again(event.at)
        if self._sent_log is None:
            self._note_unkept(event)
            return
        tokens, _ = self._reserved.pop(event.request_id, (0, 0.0))
        slot = self._sent_log.sent(at_s=event.at, tokens=tokens)
        if self._counts_tokens:
            _forget(self._reserved, now_s=event.at)
            _forget(self._sent, now_s=event.at)
            self._sent[event.request_id] = (slot, event.at)

    def _note_unkept(self, event: Sent) -> None:
        """For the time when there is room again. What is settled meanwhile counts as it was reserved."""
        if not self._wanted_slots:
            return
        tokens, _ = self._reserved.pop(event.request_id, (0, 0.0))
        while self._unkept and abs(event.at - self._unkept[0][0]) > WINDOW_S:
            self._unkept.popleft()
        self._unkept.append((event.at, tokens))

    def _note_ended(self, event: Settled | Failed) -> None:
        if not self._reserved and not self._sent:
            return
        self._reserved.pop(event.request_id, None)
        sent = self._sent.pop(event.request_id, None)
        usage = event.usage if isinstance(event, Settled) else None
        if sent is not None and usage is not None and self._sent_log is not None:
            self._sent_log.settle(sent[0], at_s=sent[1], tokens=usage.total_tokens)

    def shift(self, by_s: float) -> None:
        """The wall clock was set by so much: what is remembered was sent by the new one's time."""
        if self._sent_log is None:
            return
        self._sent_log.shift(by_s)
        for entries in (self._reserved, self._sent):
            for name, (number, at_s) in entries.items():
                entries[name] = (number, at_s + by_s)

    def close(self) -> None:
        """Leaves the files to the next process."""
        self._wanted_slots = 0
        self._unkept.clear()
        self._leave()

    def _leave(self) -> None:
        self._reserved.clear()
        self._sent.clear()
        if self._sent_log is not None:
            self._sent_log.close()
            self._sent_log = None
            self._slots = 0


def _forget(entries: dict[str, tuple[int, float]], *, now_s: float) -> None:
    """What is older counts no more, nor is anything from the future. They are in the order of their times."""
    while entries:
        oldest = next(iter(entries))
        if abs(now_s - entries[oldest][1]) <= WINDOW_S:
            return
        del entries[oldest]
