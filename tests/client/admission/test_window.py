"""The sliding window and the token bucket, on a hand-driven clock."""

from __future__ import annotations

import asyncio
import json
import random
import tracemalloc
from bisect import bisect_left

import pytest

from ai_client.admission.window import BIN_S, LAG_GUARD_S, SlidingWindow, TokenBucket, WindowEntry
from ai_client.errors import RequestTooLargeError
from ai_client.platform.clock import ManualClock
from tests.client.admission.scheduling import turn


def send(window: SlidingWindow, now_s: float, tokens: int = 0) -> WindowEntry:
    entry = WindowEntry(tokens)
    window.reserve(entry)
    window.sent(entry, now_s)
    return entry


def test_a_request_leaves_the_window_after_60_s_and_the_network_delay() -> None:
    """60 s + 0.1 s + the guard after it was written, and not before."""
    window = SlidingWindow(limit_requests=1)
    send(window, 100.0)
    assert not window.fits(0, 160.1)
    assert window.fits(0, 160.1 + LAG_GUARD_S + 1e-6)


def test_a_request_that_is_not_written_yet_counts_without_end() -> None:
    """Its connection may take long; its minute begins when it is written."""
    window = SlidingWindow(limit_requests=1)
    entry = WindowEntry(0)
    window.reserve(entry)
    assert not window.fits(0, 1e6)
    window.sent(entry, 1e6)
    assert not window.fits(0, 1e6 + 60)
    assert window.fits(0, 1e6 + 61)


def test_a_request_that_never_went_out_costs_nothing() -> None:
    """Forgetting gives requests and tokens back; forgetting what was sent does nothing."""
    window = SlidingWindow(limit_requests=2, limit_tokens=100)
    entry = WindowEntry(60)
    window.reserve(entry)
    window.forget(entry)
    window.forget(entry)
    assert (window.used_requests, window.used_tokens) == (0, 0)
    sent = send(window, 0.0, 60)
    window.forget(sent)
    assert (window.used_requests, window.used_tokens) == (1, 60)


def test_tokens_are_settled_to_what_was_used_both_ways() -> None:
    """Less is free at once; more is owed; after the window has gone by nothing changes."""
    window = SlidingWindow(limit_requests=None, limit_tokens=100)
    entry = send(window, 0.0, 80)
    assert not window.fits(30, 1.0)
    window.settle(entry, 50)
    assert window.fits(30, 1.0)
    window.settle(entry, 120)
    assert window.used_tokens == 120
    assert window.fits(100, 70.0)
    window.settle(entry, 10)
    assert window.used_tokens == 0


def test_without_limits_no_log_is_kept() -> None:
    """A minute of requests at full speed would be memory for nothing."""
    window = SlidingWindow(limit_requests=None)
    for index in range(1000):
        send(window, float(index))
    assert (window.used_requests, window.used_tokens) == (0, 0)


def test_requests_of_one_moment_leave_with_the_last_of_them() -> None:
    """Counted together, none may leave before its own 60 s are over."""
    window = SlidingWindow(limit_requests=3)
    first, last = 10.0, 10.0 + 0.9 * BIN_S
    for now_s in (first, last, first + BIN_S):
        send(window, now_s)
    assert not window.fits(0, first + 60.15 + 1e-6)
    assert window.fits(0, last + 60.15 + 1e-6)
    assert window.used_requests == 1


def test_a_settled_request_changes_its_moment_and_no_other() -> None:
    """What is freed early must not be freed a second time when the moment leaves."""
    window = SlidingWindow(limit_requests=None, limit_tokens=100)
    entries = [send(window, 10.0, 30), send(window, 10.001, 30), send(window, 11.0, 30)]
    window.settle(entries[0], 5)
    assert window.used_tokens == 65
    window.fits(0, 70.5)
    assert window.used_tokens == 30


def test_a_minute_of_many_requests_is_a_few_thousand_numbers() -> None:
    """50,000 requests in a minute take less than 1 MB, and the same in the next minute."""
    window = SlidingWindow(limit_requests=10**9, limit_tokens=10**12)
    tracemalloc.start()
    try:
        sizes = []
        for minute in range(3):
            for number in range(50_000):
                now_s = 61 * minute + number / 833
                window.fits(1, now_s)
                send(window, now_s, 1)
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert window.used_requests == pytest.approx(50_000, rel=0.01)
    assert max(sizes) < 1_000_000
    assert sizes[2] < sizes[1] * 1.05


@pytest.mark.parametrize("seed", range(4))
def test_a_full_window_is_never_over_the_limit_and_is_used(seed: int) -> None:
    """Ten minutes of more demand than there is room, stalls between, delays of up to 100 ms: 99 % and not one over."""
    dice = random.Random(seed)  # noqa: S311 - a seeded run
    limit, now_s, arrivals = 6000, 0.0, []
    window = SlidingWindow(limit_requests=limit)
    while now_s < 600.0:
        for _ in range(dice.randrange(1, 4)):
            if not window.fits(0, now_s):
                expiry_s = window.next_expiry_s()
                assert expiry_s is not None
                now_s = max(now_s, expiry_s)
                break
            send(window, now_s)
            arrivals.append(now_s + dice.uniform(0.0, 0.1))
        now_s += dice.choice([0.0, 0.001, 0.002, 0.011 * dice.random()])
    arrivals.sort()
    assert max(bisect_left(arrivals, at_s + 60.0) - index for index, at_s in enumerate(arrivals)) <= limit
    assert 9 * 60.0 / (arrivals[9 * limit] - arrivals[0]) >= 0.99


@pytest.mark.parametrize(
    ("ahead", "expected_s"), [(0, 60.15), (1, 61.15), (2, 130.15), (3, 130.15), (4, 190.30)]
)
def test_the_earliest_admission_is_a_lower_bound(ahead: int, expected_s: float) -> None:
    """With two requests a minute, sent at 0 and 1 s, asked at 70 s or before."""
    window = SlidingWindow(limit_requests=2)
    send(window, 0.0)
    send(window, 1.0)
    now_s = 2.0 if ahead < 2 else 70.0
    if now_s == 70.0:
        window.fits(0, now_s)
        send(window, now_s)
        send(window, now_s)
        ahead -= 2
    assert window.earliest_s(ahead=ahead, tokens=0, now_s=now_s) == pytest.approx(expected_s, abs=0.01)


def test_a_restart_opens_no_second_window() -> None:
    """What a snapshot holds counts in the next process, also after the wall clock has moved on."""
    clock = ManualClock()
    window = SlidingWindow(limit_requests=10, limit_tokens=1000)
    for _ in range(6):
        send(window, clock.monotonic(), 100)
        clock.advance(5.0)
    unsent = WindowEntry(40)
    window.reserve(unsent)
    state = json.loads(json.dumps(window.snapshot(clock=clock)))

    later = ManualClock(monotonic_s=7.0, wall_s=clock.wall() + 2.0)
    restarted = SlidingWindow(limit_requests=10, limit_tokens=1000)
    assert restarted.restore(state, clock=later) == 7
    assert (restarted.used_requests, restarted.used_tokens) == (7, 640)
    assert restarted.fits(360, later.monotonic())
    assert not restarted.fits(361, later.monotonic())
    # The first was sent 32 s before the restart, so it leaves 28.15 s after it, up to a rounding later.
    assert restarted.next_expiry_s() == pytest.approx(7.0 + 28.15, abs=0.06)
    assert restarted.next_expiry_s() >= 7.0 + 28.15  # type: ignore[operator]


def test_a_snapshot_of_the_future_counts_from_now() -> None:
    """The wall clock was set back: entries begin now, so that they neither vanish nor stay for hours."""
    clock = ManualClock()
    window = SlidingWindow(limit_requests=1)
    assert window.restore({"version": 1, "entries": [[clock.wall() + 9999.0, 1, 5]]}, clock=clock) == 1
    assert window.next_expiry_s() == pytest.approx(clock.monotonic() + 60.15)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"version": 2, "entries": [[0, 1, 1]]},
        {"version": 1, "entries": "x"},
        {"version": 1, "entries": [[1], ["a", 1, 1], [1.0, -1, 0], [1.0, 1, None], None]},
    ],
)
def test_a_snapshot_that_makes_no_sense_is_left_out(state: dict[str, object]) -> None:
    """A file that another program wrote must not stop the service."""
    window = SlidingWindow(limit_requests=1)
    assert window.restore(state, clock=ManualClock()) == 0


async def test_the_bucket_gives_its_capacity_at_once_and_then_its_rate() -> None:
    """Three at once, then one each half second, in order."""
    clock = ManualClock()
    bucket = TokenBucket(3, 2.0, clock=clock)
    done: list[int] = []

    async def take(number: int) -> None:
        assert await bucket.acquire() is True
        done.append(number)

    tasks = [asyncio.ensure_future(take(number)) for number in range(6)]
    await turn()
    assert done == [0, 1, 2]
    assert clock.pending == 1
    for expected in (3, 4, 5):
        clock.advance(0.5)
        await turn()
        assert done[-1] == expected
    await asyncio.gather(*tasks)
    assert clock.pending == 0


async def test_a_large_request_is_not_starved_by_small_ones() -> None:
    """Nobody overtakes in the bucket."""
    clock = ManualClock()
    bucket = TokenBucket(10, 1.0, clock=clock)
    await bucket.acquire(10)
    large = asyncio.ensure_future(bucket.acquire(8))
    await turn()
    small = asyncio.ensure_future(bucket.acquire(1))
    await turn()
    clock.advance(7.9)
    await turn()
    assert not large.done()
    assert not small.done()
    clock.advance(0.2)
    await turn()
    assert large.done()
    assert not small.done()
    clock.advance(1.0)
    await asyncio.gather(large, small)


async def test_a_cancelled_waiter_leaves_the_bucket_as_it_was() -> None:
    """Cancelled while it waits, and in the moment it is served."""
    clock = ManualClock()
    bucket = TokenBucket(4, 1.0, clock=clock)
    await bucket.acquire(4)
    first, second = (asyncio.ensure_future(bucket.acquire(2)) for _ in range(2))
    await turn()
    first.cancel()
    await turn()
    clock.advance(2.0)
    assert not second.cancelled()
    second.cancel()  # served in this very moment
    await turn()
    assert bucket.tokens == pytest.approx(2.0)
    assert clock.pending == 0


async def test_more_than_the_capacity_is_refused() -> None:
    """It would wait for ever."""
    with pytest.raises(RequestTooLargeError, match="needs up to 11 tokens, but the limit is 10"):
        await TokenBucket(10, 1.0).acquire(11)


@pytest.mark.parametrize(("capacity", "rate"), [(0, 1), (1, 0), (-1, 1)])
def test_a_bucket_without_size_or_rate_is_refused(capacity: float, rate: float) -> None:
    """Both must be positive."""
    with pytest.raises(ValueError, match="must be positive"):
        TokenBucket(capacity, rate)
