"""What the traffic itself says of the upstream, so that a health check need not ask it."""

from __future__ import annotations

from collections.abc import Callable

from ai_client.contract.events import Failed, Settled
from ai_client.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    MalformedResponseError,
    MaxRetriesExceeded,
    PermissionDeniedError,
    ServerError,
    TLSVerificationError,
    TransportTimeoutError,
)

#: Errors by which the upstream or the way to it is at fault. All others say nothing of it.
FAULTS = frozenset(
    error.__name__
    for error in (
        AuthenticationError,
        ConnectError,
        ConnectionLostError,
        MalformedResponseError,
        MaxRetriesExceeded,
        PermissionDeniedError,
        ServerError,
        TLSVerificationError,
        TransportTimeoutError,
    )
)


class Evidence:
    """Is told how the client's requests end. Times are monotonic seconds."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since_s = float("-inf")
        self._answered_s = float("-inf")
        self._fault: str | None = None

    def forget(self) -> None:
        """Key or configuration changed: only requests that begin from now on say anything."""
        self._since_s = self._clock()
        self._answered_s = float("-inf")
        self._fault = None

    def settled(self, event: Settled) -> None:
        """A request was answered."""
        now_s = self._clock()
        if not event.cached and now_s - event.latency_s >= self._since_s:
            self._answered_s = now_s
            self._fault = None

    def failed(self, event: Failed) -> None:
        """A request failed."""
        if event.error in FAULTS and self._clock() - event.latency_s >= self._since_s:
            self._fault = event.error

    def note_fault(self, error: str) -> None:
        """A request went on elsewhere after it."""
        self._fault = error

    def answered_s_ago(self) -> float | None:
        """How long ago the upstream answered, where nothing has failed by its fault since."""
        if self._fault is not None or self._answered_s == float("-inf"):
            return None
        return self._clock() - self._answered_s

    @property
    def fault(self) -> str | None:
        """The class of the error that the last request ended with, where the upstream was at fault."""
        return self._fault
