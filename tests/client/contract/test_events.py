"""Each event goes to those that want its kind."""

from __future__ import annotations

from ai_client.contract.events import CacheMissed, Event, EventStream, KeyRotated, StoreDegraded

MISSED = CacheMissed(at=0.0, request_id="r", tenant="t", model="m", endpoint="e")
ROTATED = KeyRotated(at=0.0, before_fingerprint="a", after_fingerprint="b")
DEGRADED = StoreDegraded(at=0.0, store="s", reason="r")


def test_a_listener_gets_the_kinds_that_it_asked_for_in_order_of_subscription() -> None:
    """And no other; who names none gets all; a kind that nobody wants goes nowhere."""
    seen: list[tuple[str, Event]] = []
    events = EventStream()
    assert not events.active
    events.subscribe(lambda event: seen.append(("one", event)), CacheMissed, KeyRotated)
    events.subscribe(lambda event: seen.append(("two", event)), KeyRotated)
    assert events.active
    assert [events.wants(kind) for kind in (CacheMissed, KeyRotated, StoreDegraded)] == [True, True, False]
    for event in (MISSED, ROTATED, DEGRADED):
        events.emit(event)
    assert seen == [("one", MISSED), ("one", ROTATED), ("two", ROTATED)]
    seen.clear()
    events.subscribe(lambda event: seen.append(("all", event)))
    assert events.wants(StoreDegraded)
    for event in (ROTATED, DEGRADED):
        events.emit(event)
    assert seen == [("one", ROTATED), ("two", ROTATED), ("all", ROTATED), ("all", DEGRADED)]


def test_unsubscribing_ends_one_subscription_alone() -> None:
    """Also where one listener has subscribed twice."""
    seen: list[Event] = []
    events = EventStream()
    end = events.subscribe(seen.append, CacheMissed)
    end_other = events.subscribe(seen.append, KeyRotated)
    end()
    end()
    for event in (MISSED, ROTATED):
        events.emit(event)
    assert seen == [ROTATED]
    end_other()
    assert not events.active
    assert not events.wants(KeyRotated)
