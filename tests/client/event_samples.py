"""Events of requests that ended, for tests that listen to them; what matters to one is told by it."""

from __future__ import annotations

from typing import Any

from ai_client.contract.events import Failed, Settled

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
