"""How far a request got in an HTTP stack that is not ours, and what that makes of its troubles."""

from __future__ import annotations

from ai_client.errors import TransportTimeoutError
from ai_client.transport.base import Timeouts, WireRequest


class RequestProgress:
    """One request under way: how far it got, and whom to tell."""

    __slots__ = ("headers_came", "request", "sent", "timeouts")

    def __init__(self, request: WireRequest, timeouts: Timeouts) -> None:
        self.request = request
        self.timeouts = timeouts
        self.sent = False
        self.headers_came = False

    def mark_sent(self) -> None:
        """A connection is held, and the first byte is about to be written."""
        if not self.sent:
            if self.request.on_sent is not None:
                self.request.on_sent()
            self.sent = True

    def timeout_error(self, host: str) -> TransportTimeoutError:
        """That a wait was too long, in the phase that the request is in."""
        timeouts = self.timeouts
        if not self.sent:
            return TransportTimeoutError(host, phase="connect", timeout_s=timeouts.connect_s, sent=False)
        if not self.headers_came:
            return TransportTimeoutError(host, phase="headers", timeout_s=timeouts.headers_s, sent=True)
        return TransportTimeoutError(host, phase="read", timeout_s=timeouts.read_s, sent=True)
