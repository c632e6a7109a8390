"""Each event goes to those that want its kind."""

from __future__ import annotations

from ai_client.events import CacheMissed, Event, KeyRotated, StoreDegraded
from ai_client.gateway.switchboard import Switchboard

MISSED = CacheMissed(at=0.0, request_id="r", tenant="t", model="m", endpoint="e")
ROTATED = KeyRotated(at=0.0, before_fingerprint="a", after_fingerprint="b")


def test_a_listener_gets_the_kinds_that_it_asked_for_in_order_of_connection() -> None:
    """And no other; a kind that nobody wants goes nowhere."""
    seen: list[tuple[str, Event]] = []
    switchboard = Switchboard()
    switchboard.connect(lambda event: seen.append(("one", event)), CacheMissed, KeyRotated)
    switchboard.connect(lambda event: seen.append(("two", event)), KeyRotated)
    for event in (MISSED, ROTATED, StoreDegraded(at=0.0, store="s", reason="r")):
        switchboard(event)
    assert seen == [("one", MISSED), ("one", ROTATED), ("two", ROTATED)]
