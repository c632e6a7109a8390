"""Admission, on a hand-driven clock."""

from __future__ import annotations

import asyncio

import pytest

from ai_client.contract.options import QueueOptions, TenantOptions
from ai_client.errors import (
    AIClientError,
    ClientClosedError,
    DeadlineExceeded,
    LeaseEndedError,
    OverloadError,
    RequestTooLargeError,
)
from tests.client.admission.scheduling import Rig, turn


async def test_admits_at_once_while_there_is_room() -> None:
    """No waiting, no timer."""
    rig = Rig(limit_requests=5, max_concurrent=5)
    for index in range(5):
        await rig.start(str(index))
    assert rig.scheduler.in_flight == 5
    assert rig.clock.pending == 0


async def test_one_priority_and_tenant_is_served_in_order() -> None:
    """No inversion among a thousand, and one timer for all of them."""
    rig = Rig(limit_requests=10)
    tasks = [rig.start(str(index)) for index in range(1000)]
    await turn()
    for _ in range(101):
        for name in list(rig.permits):
            await rig.finish(name)
        assert rig.clock.pending <= 1
        await rig.advance(60.2)
    assert rig.order == [str(index) for index in range(1000)]
    await asyncio.gather(*tasks)


async def test_the_more_urgent_goes_first() -> None:
    """0 before 5 before 9, whatever came first."""
    rig = Rig(max_concurrent=1)
    await rig.start("running")
    for priority in (9, 5, 0, 9, 0):
        rig.start(f"p{priority}", priority=priority)
    await turn()
    for _ in range(5):
        await rig.finish(rig.order[-1])
    assert rig.order == ["running", "p0", "p0", "p5", "p9", "p9"]


async def test_the_oldest_waiter_gets_every_eighth_admission() -> None:
    """The bound on waiting: with n older ones a waiter is admitted within 8 * (n + 1) admissions."""
    rig = Rig(max_concurrent=1)
    await rig.start("running")
    rig.start("old-0", priority=9)
    rig.start("old-1", priority=9)
    for index in range(40):
        rig.start(f"urgent-{index}", priority=0)
    await turn()
    for _ in range(20):
        await rig.finish(rig.order[-1])
    assert rig.order.index("old-0") == 8
    assert rig.order.index("old-1") == 16


async def test_tenants_share_by_their_weights() -> None:
    """Two to one, however many each has waiting; the present counts, not the past."""
    options = QueueOptions(tenants={"heavy": TenantOptions(weight=2.0)})
    rig = Rig(max_concurrent=1, options=options)
    for index in range(20):
        rig.permits[str(index)] = await rig.scheduler.acquire(rig.lane, tenant="light", priority=5, tokens=0)
        await rig.finish(str(index))
    await rig.start("running")
    for index in range(60):
        rig.start(f"light-{index}", tenant="light")
        rig.start(f"heavy-{index}", tenant="heavy")
    await turn()
    for _ in range(30):
        await rig.finish(rig.order[-1])
    heavy = sum(name.startswith("heavy") for name in rig.order[1:])
    assert heavy == pytest.approx(20, abs=1)


async def test_a_tenant_cannot_win_by_calling_everything_urgent() -> None:
    """Priority orders a tenant's own requests; between tenants the shares decide."""
    rig = Rig(max_concurrent=1)
    await rig.start("running")
    for index in range(20):
        rig.start(f"pushy-{index}", tenant="pushy", priority=0)
        rig.start(f"modest-{index}", tenant="modest", priority=9)
    await turn()
    for _ in range(20):
        await rig.finish(rig.order[-1])
    assert sum(name.startswith("modest") for name in rig.order[1:21]) == 10


async def test_a_large_request_is_not_overtaken() -> None:
    """It waits for its tokens, and the small ones behind it wait too."""
    rig = Rig(limit_tokens=100)
    await rig.start("first", tokens=60)
    rig.start("large", tokens=90)
    rig.start("small", tokens=10)
    await turn()
    assert rig.order == ["first"]
    await rig.finish("first")
    await rig.advance(60.2)
    assert rig.order == ["first", "large", "small"]


async def test_settling_to_less_lets_the_next_go_at_once() -> None:
    """What was reserved and not used is free as soon as it is known."""
    rig = Rig(limit_tokens=100)
    permit = await rig.start("first", tokens=100)
    rig.start("second", tokens=50)
    await turn()
    rig.scheduler.sent(permit)
    rig.scheduler.settle(permit, 40)
    await turn()
    assert rig.order == ["first", "second"]


async def test_a_closed_lane_does_not_hold_up_another() -> None:
    """A 429 of one model leaves the others alone."""
    rig = Rig()
    other = rig.make_lane("other")
    rig.lane.throttle.refused(rig.clock.monotonic(), sent_at_s=rig.clock.monotonic(), retry_after_s=5.0)
    rig.start("slowed")
    await rig.start("free", lane=other)
    assert rig.order == ["free"]
    await rig.advance(6.0)
    assert rig.order == ["free", "slowed"]


async def test_a_lane_at_its_own_limit_waits_for_its_own_release() -> None:
    """The adaptive limit of one model is not the limit of another."""
    rig = Rig()
    narrow = rig.make_lane("narrow", limit=1)
    await rig.start("narrow-0", lane=narrow)
    rig.start("narrow-1", lane=narrow)
    await rig.start("wide")
    assert rig.order == ["narrow-0", "wide"]
    await rig.finish("narrow-0")
    assert rig.order == ["narrow-0", "wide", "narrow-1"]


async def test_a_deadline_that_cannot_be_met_fails_at_once() -> None:
    """Before it waits and before it spends quota; with the earliest moment as a fact."""
    rig = Rig(limit_requests=1)
    await rig.start("first")
    await rig.finish("first")
    with pytest.raises(DeadlineExceeded) as caught:
        await rig.start("hasty", deadline_s=30.0)
    assert caught.value.phase == "queue"
    assert caught.value.earliest_s == pytest.approx(60.15)
    assert rig.scheduler.queued == 0
    assert rig.clock.pending == 0
    assert rig.window.used_requests == 1


async def test_a_deadline_that_has_passed_fails_at_once() -> None:
    """Even where there is room."""
    rig = Rig()
    with pytest.raises(DeadlineExceeded):
        await rig.start("late", deadline_s=0.0)
    assert rig.window.used_requests == 0


async def test_a_deadline_that_passes_in_the_queue_ends_the_wait() -> None:
    """At the deadline, by the one timer; those behind it stay."""
    rig = Rig(max_concurrent=1)
    await rig.start("running")
    short = rig.start("short", deadline_s=2.0)
    rig.start("patient")
    await turn()
    await rig.advance(1.9)
    assert not short.done()
    await rig.advance(0.2)
    with pytest.raises(DeadlineExceeded, match=r"deadline of 2 s"):
        await short
    await rig.finish("running")
    assert rig.order == ["running", "patient"]
    assert rig.clock.pending == 0


async def test_a_429_fails_those_whose_deadline_falls_into_the_pause() -> None:
    """They learn it at once, not at their deadline."""
    rig = Rig(max_concurrent=1)
    await rig.start("running")
    short, long = rig.start("short", deadline_s=10.0), rig.start("long", deadline_s=100.0)
    await turn()
    now_s = rig.clock.monotonic()
    rig.lane.throttle.refused(now_s, sent_at_s=now_s, retry_after_s=30.0)
    rig.scheduler.lane_changed(rig.lane)
    await turn()
    assert short.done()
    with pytest.raises(DeadlineExceeded):
        await short
    assert not long.done()
    await rig.finish("running")
    await rig.advance(34.0)
    await long


async def test_who_waits_is_refused_just_as_a_newcomer_would_be() -> None:
    """A lane that opens before a deadline leaves time to be answered; one that opens at it does not."""
    rig = Rig(max_concurrent=1)
    await rig.start("running")
    waiting = rig.start("waiting", deadline_s=11.0)
    await turn()
    now_s = rig.clock.monotonic()
    rig.lane.throttle.not_before_s = now_s + 10.0
    rig.scheduler.lane_changed(rig.lane)
    newcomer = rig.start("newcomer", deadline_s=11.0)
    await turn()
    assert (waiting.done(), newcomer.done()) == (False, False)
    rig.lane.throttle.not_before_s = now_s + 11.0
    rig.scheduler.lane_changed(rig.lane)
    late = rig.start("late", deadline_s=11.0)
    await turn()
    assert (waiting.done(), newcomer.done(), late.done()) == (True, True, True)


async def test_a_request_of_more_than_a_minutes_tokens_is_refused() -> None:
    """It could never be admitted."""
    rig = Rig(limit_tokens=100)
    with pytest.raises(RequestTooLargeError):
        await rig.start("huge", tokens=101)


async def test_a_full_queue_refuses_the_newcomer() -> None:
    """With the facts, and without spending anything."""
    rig = Rig(max_concurrent=1, options=QueueOptions(max_queued=2))
    await rig.start("running")
    waiting = [rig.start(str(index)) for index in range(2)]
    await turn()
    with pytest.raises(OverloadError) as caught:
        await rig.start("late")
    assert (caught.value.queued, caught.value.limit) == (2, 2)
    assert not any(task.done() for task in waiting)


async def test_a_full_queue_gives_way_to_the_more_urgent() -> None:
    """The newest of the least urgent makes room."""
    rig = Rig(max_concurrent=1, options=QueueOptions(max_queued=2))
    await rig.start("running")
    first, second = rig.start("p9-0", priority=9), rig.start("p9-1", priority=9)
    await turn()
    urgent = rig.start("urgent", priority=0)
    await turn()
    with pytest.raises(OverloadError):
        await second
    assert not first.done()
    await rig.finish("running")
    await urgent


async def test_a_tenant_that_fills_the_queue_makes_room_for_another() -> None:
    """One tenant's flood must not lock the others out."""
    rig = Rig(max_concurrent=1, options=QueueOptions(max_queued=4))
    await rig.start("running")
    flood = [rig.start(f"flood-{index}", tenant="flood", priority=0) for index in range(4)]
    await turn()
    quiet = rig.start("quiet", tenant="quiet", priority=9)
    await turn()
    with pytest.raises(OverloadError, match="tenant flood"):
        await flood[3]
    assert not quiet.done()
    assert rig.scheduler.queued == 4


async def test_a_cancelled_waiter_gives_its_place_back() -> None:
    """First, middle and last of the queue; nothing leaks."""
    rig = Rig(max_concurrent=1)
    await rig.start("running")
    tasks = [rig.start(str(index), deadline_s=1000.0) for index in range(5)]
    await turn()
    for index in (0, 2, 4):
        tasks[index].cancel()
    await turn()
    assert rig.scheduler.queued == 2
    await rig.finish("running")
    await rig.finish("1")
    await rig.finish("3")
    assert (rig.scheduler.in_flight, rig.scheduler.queued, rig.clock.pending) == (0, 0, 0)


async def test_a_waiter_cancelled_in_the_moment_it_is_admitted_gives_its_permit_back() -> None:
    """The permit is granted, the task has not run: it goes to the next."""
    rig = Rig(max_concurrent=1, limit_requests=2)
    await rig.start("running")
    unlucky, lucky = rig.start("unlucky"), rig.start("lucky")
    await turn()
    rig.scheduler.release(rig.permits["running"])  # grants to `unlucky`
    unlucky.cancel()
    await turn()
    assert rig.order == ["running", "lucky"]
    assert lucky.done()
    assert rig.window.used_requests == 1


async def test_a_waiter_cancelled_before_its_task_ran_is_passed_over() -> None:
    """Cancelled, and dispatched before the cancellation was delivered."""
    rig = Rig(max_concurrent=1)
    await rig.start("running")
    gone, lucky = rig.start("gone"), rig.start("lucky")
    await turn()
    gone.cancel()
    rig.scheduler.release(rig.permits["running"])
    await turn()
    assert lucky.done()
    assert (rig.scheduler.in_flight, rig.scheduler.queued) == (1, 0)


async def test_a_permit_released_twice_counts_once() -> None:
    """Whoever cleans up need not know whether somebody did already."""
    rig = Rig()
    permit = await rig.start("one")
    rig.scheduler.release(permit)
    rig.scheduler.release(permit)
    assert (rig.scheduler.in_flight, rig.window.used_requests) == (0, 0)


async def test_closing_refuses_those_who_wait_and_those_who_come() -> None:
    """And leaves no timer."""
    rig = Rig(max_concurrent=1)
    await rig.start("running")
    waiting = rig.start("waiting", deadline_s=50.0)
    await turn()
    rig.scheduler.close()
    for task in (waiting, rig.start("new")):
        with pytest.raises(ClientClosedError):
            await task
    assert rig.clock.pending == 0


async def test_new_limits_hold_from_now_on() -> None:
    """Raised, those who wait go; lowered, those in flight stay and no more come."""
    rig = Rig(max_concurrent=1, limit_requests=1)
    await rig.start("first")
    tasks = [rig.start(str(index), tokens=10) for index in range(3)]
    huge = rig.start("huge", tokens=500)
    await turn()
    rig.scheduler.reconfigure(max_concurrent=3, limit_requests=10, limit_tokens=100, options=QueueOptions())
    await turn()
    assert rig.order == ["first", "0", "1"]
    with pytest.raises(RequestTooLargeError):
        await huge
    rig.scheduler.reconfigure(max_concurrent=1, limit_requests=10, limit_tokens=100, options=QueueOptions())
    await rig.finish("first")
    await rig.finish("0")
    assert not tasks[2].done()
    await rig.finish("1")
    assert tasks[2].done()


async def test_a_storm_after_a_429_is_paced() -> None:
    """A hundred waiters resume one by one, not all at once."""
    rig = Rig(limit_requests=6000)
    now_s = rig.clock.monotonic()
    rig.lane.throttle.refused(now_s, sent_at_s=now_s, retry_after_s=10.0)
    tasks = [rig.start(str(index)) for index in range(100)]
    await turn()
    assert rig.order == []
    await rig.advance(11.1)
    assert 1 <= len(rig.order) <= 6
    await rig.advance(5.0)
    assert len(rig.order) < 45
    for task in tasks:
        task.cancel()
    await turn()
    assert (rig.scheduler.queued, rig.clock.pending) == (0, 0)


async def test_every_refusal_is_one_of_ours() -> None:
    """Callers can catch one base class."""
    rig = Rig(max_concurrent=1, options=QueueOptions(max_queued=0))
    await rig.start("running")
    with pytest.raises(AIClientError):
        await rig.start("refused")


async def test_a_waiter_with_a_deadline_goes_as_soon_as_there_is_room() -> None:
    """The timer that is set for its deadline makes way for the earlier one, once that is known."""
    rig = Rig(limit_requests=1)
    permit = await rig.start("first")
    second = rig.start("second", deadline_s=100.0)
    await turn()
    rig.scheduler.sent(permit)
    await rig.advance(60.2)
    assert second.done()
    assert rig.order == ["first", "second"]


async def test_what_is_not_written_at_a_hand_over_is_not_written_by_this_process() -> None:
    """The next one counts from the hand-over on; once this one admits again, it writes again."""
    rig = Rig(limit_requests=5)
    await rig.start("a")
    rig.scheduler.hand_over()
    with pytest.raises(LeaseEndedError):
        rig.scheduler.sent(rig.permits["a"])
    rig.scheduler.resume()
    rig.scheduler.sent(rig.permits["a"])
    rig.scheduler.hand_over()
    rig.scheduler.sent(rig.permits["a"])  # told anew of what was written already
