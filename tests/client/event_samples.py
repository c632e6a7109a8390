"""Events of requests that ended, for tests that listen to them; what matters to one is told by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ai_client.contract.events import Event, EventStream, Failed, Settled

_REQUEST: dict[str, Any] = {
    "at": 0.0,
    "request_id": "r",
    "tenant": "web",
    "model": "gpt-4.1",
    "endpoint": "chat/completions",
    "stream": False,
    "attempts": 1,
    "latency_s": 0.1,
    "waited_s": 0.0,
    "upstream_s": 0.1,
    "key_fingerprint": "",
    "importance": None,
    "cost_tags": {},
    "asked_model": "gpt-4.1",
}


def settled(**changes: Any) -> Settled:
    """A request that went well."""
    whole = {"status": 200, "cached": False, "usage": None, "cost_usd": None, "first_byte_s": None}
    return Settled(**(_REQUEST | whole | changes))


def failed(**changes: Any) -> Failed:
    """One that did not."""
    end = {"error": "ServerError", "code": "upstream_server_error", "status": None, "billed_unknown": False}
    return Failed(**(_REQUEST | end | changes))


class Listening(Protocol):
    """What has a listener for each kind of event."""

    listeners: Mapping[type[Any], Callable[[Any], None]]


def tell(listening: Listening, event: Event) -> None:
    """As the client tells it."""
    events = EventStream()
    events.subscribe_each(listening.listeners)
    events.emit(event)
