"""The protocol in a simulated fleet that has every kind of trouble.

`python -m tests.client.coordination --seeds 100000` runs as many as one likes; `--seed N` replays one.
"""

from __future__ import annotations

import pytest

from ai_client.coordination.books import Books, Member
from ai_client.coordination.lease import Lease, Mode, Moment
from ai_client.coordination.protocol import Terms
from tests.client.coordination.__main__ import broken
from tests.client.coordination.simulation import World

_CHUNK = 20


@pytest.mark.parametrize("first", range(0, 240, _CHUNK))
def test_no_minute_holds_more_than_the_limit_and_all_find_their_way_back(first: int) -> None:
    stories = broken(range(first, first + _CHUNK))
    assert not stories, "\n".join(stories)


def test_a_seed_replays() -> None:
    """A failing seed is a line that replays."""
    first, again = World(7).run(), World(7).run()
    assert first.arrivals == again.arrivals
    assert first.log == again.log


def _under_any_lease(lease: Lease, now: Moment, *, used: int) -> bool:
    return lease.mode(now) is Mode.LEASED or used <= lease.limit(now)


@pytest.mark.parametrize(
    ("seed", "target", "name", "broken_rule"),
    [
        (67, Books, "recovering", property(lambda _books: False)),
        (1, Lease, "_newest", lambda lease, _now, _ms: lease._answered[-1].order if lease._answered else 0),
        (2, Terms, "static_ms", property(lambda terms: terms.lease_ms)),
        (19, Terms, "static_ms", property(lambda terms: terms.lease_ms + terms.span_ms)),
        (138, Terms, "takeback_ms", property(lambda terms: terms.lease_ms)),
        (110, Member, "claim", property(lambda member: member.cap)),
        (15, World, "may_write", lambda _world, _host, _now: True),
        (2353, Lease, "may_write", _under_any_lease),
        (178, Lease, "_needed", lambda lease, used, demand: max(min(lease._cap, demand), used, lease.floor)),
    ],
    ids=[
        "gives after a failover",
        "takes back at once",
        "own share at once",
        "own share too early",
        "no ageing",
        "claims without silent hosts",
        "no look at the write",
        "what was admitted under a lease that ended",
        "goes on with what it gave back",
    ],
)
def test_the_simulation_finds_a_rule_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, seed: int, target: type, name: str, broken_rule: object
) -> None:
    """Each rule is needed: without it this seed breaks the bound."""
    monkeypatch.setattr(target, name, broken_rule)
    (story,) = broken(range(seed, seed + 1))
    assert "in the minute before" in story


@pytest.mark.parametrize(
    "seed", [2518, 2353], ids=["a call that is two minutes late", "a write after a lapse"]
)
def test_what_once_broke_it_does_so_no_more(seed: int) -> None:
    assert broken(range(seed, seed + 1)) == []
