"""Keeps limits of models, and models that are parked, over restarts and kills."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any, Final

from ai_client.admission.meter_log import MeterLog
from ai_client.client import AIAPIClient
from ai_client.contract.events import Event, Throttled
from ai_client.gateway.process.window_memory import FOLDER
from ai_client.platform import json_log

_PARKED: Final = "parked.json"
# A pause that is shorter than a restart needs no memory.
_LEAST_PAUSE_S: Final = 2.0

_log = logging.getLogger(__name__)


class LimitMemory:
    """A listener of the event stream."""

    kinds = (Throttled,)

    def __init__(self, state: Path) -> None:
        self._folder = state / FOLDER
        self._meters: MeterLog | None = None
        self._client: AIAPIClient | None = None
        self._is_first = False

    def begin(self, client: AIAPIClient, *, is_first: bool) -> None:
        """From now on. `is_first`: no process before this one is there to tell what counts."""
        self._client, self._is_first = client, is_first
        if is_first:
            client.restore({"parked": self._parked()})
        try:
            self._take(client)
        except OSError as error:
            # The service is worth more than its memory.
            _log.error("limits_not_kept", extra=json_log.fields({"reason": str(error)}))

    def _take(self, client: AIAPIClient) -> None:
        """Raises OSError, and then nothing is taken."""
        meters = MeterLog(self._folder)
        try:
            client.remember_limits(meters, is_first=self._is_first)
        except OSError:
            meters.close()
            raise
        self._meters = meters

    def try_again(self, client: AIAPIClient) -> None:
        """Where there was no room on the disk as this process began: with all that counts by now."""
        if self._meters is not None or self._client is None:
            return
        try:
            self._take(client)
        except OSError:
            return
        client.note_limits_again()

    def recall(self, client: AIAPIClient) -> None:
        """What other processes have sent since counts in `client`, too."""
        client.restore({"parked": self._parked()})
        if self._meters is None:
            return
        try:
            client.remember_limits(self._meters, is_first=True)
        except OSError as error:
            # Whoever asks serves again next, and has to.
            _log.error("limits_not_known", extra=json_log.fields({"reason": str(error)}))

    def __call__(self, event: Event) -> None:
        """The listener: a long pause is on disk before the next request."""
        if isinstance(event, Throttled) and event.pause_s >= _LEAST_PAUSE_S and self._client is not None:
            self._keep_parked(self._client)

    def note_again(self, client: AIAPIClient) -> None:
        """The wall clock was set, and times on disk are by it. `client` is the one in place."""
        if client.parked():
            self._keep_parked(client)
        client.note_limits_again()

    def _keep_parked(self, client: AIAPIClient) -> None:
        path = self._folder / _PARKED
        fresh = path.with_name(f"{_PARKED}.{os.getpid()}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.write_text(json.dumps(client.parked()))
            fresh.replace(path)
        except OSError as error:
            _log.error("parked_not_kept", extra=json_log.fields({"reason": str(error)}))

    def close(self) -> None:
        """Leaves the files to the next process."""
        self._client = None
        if self._meters is not None:
            self._meters.close()

    def _parked(self) -> Any:
        try:
            return json.loads((self._folder / _PARKED).read_bytes())
        except (OSError, ValueError, RecursionError):
            return []
