"""A leased window: what a host may send follows its lease, at each admission."""

from __future__ import annotations

import json

import pytest

from ai_client.admission.window import WindowEntry
from ai_client.coordination.lease import Lease, Mode, Moment
from ai_client.coordination.protocol import UNKNOWN, Kind, QuotaAnswer, Terms
from ai_client.coordination.window import LeasedWindow

TERMS = Terms()


class _Clocks:
    def __init__(self) -> None:
        self.boot_s = 5_000.0
        self.wall_s = 1_700_000_000.0

    def pass_(self, seconds: float) -> None:
        self.boot_s += seconds
        self.wall_s += seconds


def _window(clocks: _Clocks, *, share: int = 10, remembers_share: bool = True) -> LeasedWindow:
    now = Moment(int(clocks.boot_s * 1000), int(clocks.wall_s * 1000))
    lease = Lease("h", "i", share=share, floor=1, now=now, remembers_share=remembers_share, terms=TERMS)
    return LeasedWindow(lease, None, boot=lambda: clocks.boot_s, wall=lambda: clocks.wall_s)


def _granted(window: LeasedWindow, *, cap: int, used: int = 0) -> None:
    lease = window.requests
    request = lease.begin(window.now(), used=used, demand=100)
    answer = QuotaAnswer(Kind.GRANTED, epoch="e", order=request.number, held=cap, cap=cap, viewed=True)
    assert lease.end(answer, window.now(), number=request.number)
    window.renew()


def _failed(window: LeasedWindow) -> None:
    request = window.requests.begin(window.now(), used=0, demand=0)
    assert window.requests.failed(number=request.number)
    window.renew()


def test_the_limit_is_what_the_lease_grants() -> None:
    clocks = _Clocks()
    window = _window(clocks)
    assert window.limit_requests == 10
    _granted(window, cap=25)
    for _ in range(25):
        assert window.fits(0, clocks.boot_s)
        window.reserve(WindowEntry(0))
    assert not window.fits(0, clocks.boot_s)


@pytest.mark.parametrize("clock", ["boot_s", "wall_s"])
def test_a_process_that_was_stopped_past_its_lease_sends_nothing_before_it_has_asked(clock: str) -> None:
    """Whichever clock tells of it: the one that goes on in suspend, or the wall clock of a paused machine."""
    clocks = _Clocks()
    window = _window(clocks)
    _granted(window, cap=25)
    setattr(clocks, clock, getattr(clocks, clock) + TERMS.lease_ms / 1000 + 600)
    assert not window.fits(0, clocks.boot_s)
    assert window.mode(window.now()) is Mode.EXPIRED
    _failed(window)
    assert window.fits(0, clocks.boot_s)


def test_a_host_that_is_cut_off_has_its_lease_then_its_floor_then_its_share() -> None:
    clocks = _Clocks()
    window = _window(clocks)
    _granted(window, cap=25)
    began_s = clocks.boot_s
    seen = [(0.0, window.limit_requests)]
    while clocks.boot_s - began_s < 200:
        clocks.pass_(1)
        _failed(window)
        if window.limit_requests != seen[-1][1]:
            seen.append((clocks.boot_s - began_s, window.limit_requests))
    limits = [limit for _, limit in seen]
    times = [at_s for at_s, _ in seen]
    assert [limit for limit in limits if limit] == [25, 1, 10]
    assert times[limits.index(1)] <= TERMS.lease_ms / 1000 + 2
    assert times[-1] == pytest.approx(TERMS.static_ms / 1000, abs=1.5)


def test_a_process_after_another_one_waits_for_the_books() -> None:
    """What the one before it held is not known, so nothing is sent, and the floor where nobody answers."""
    window = _window(_Clocks(), remembers_share=False)
    assert window.limit_requests == 0
    _failed(window)
    assert window.limit_requests == 1


def test_a_share_that_grows_while_cut_off_counts_when_the_books_know() -> None:
    clocks = _Clocks()
    window = _window(clocks)
    _granted(window, cap=10)
    window.set_limits(requests=40, tokens=None)
    clocks.pass_(TERMS.static_ms / 1000 + 1)
    _failed(window)
    assert window.limit_requests == 10
    _granted(window, cap=12)
    clocks.pass_(TERMS.static_ms / 1000 + 1)
    _failed(window)
    assert window.limit_requests == 40


def test_an_answer_that_comes_too_late_counts_for_nothing() -> None:
    clocks = _Clocks()
    window = _window(clocks)
    request = window.requests.begin(window.now(), used=0, demand=0)
    clocks.pass_(TERMS.answer_ms / 1000 + 0.1)
    late = QuotaAnswer(Kind.GRANTED, epoch="e", order=1, held=99, cap=99)
    assert not window.requests.end(late, window.now(), number=request.number)
    assert window.limit_requests == 10


@pytest.mark.parametrize("clock", ["boot_s", "wall_s"])
def test_what_was_admitted_is_not_written_past_the_lease(clock: str) -> None:
    """A process that is stopped between admission and write finds its lease ended at the write."""
    clocks = _Clocks()
    window = _window(clocks)
    _granted(window, cap=25)
    for _ in range(12):
        window.reserve(WindowEntry(0))
    assert window.may_write()
    setattr(clocks, clock, getattr(clocks, clock) + TERMS.lease_ms / 1000 + 1)
    assert not window.may_write()
    _failed(window)
    assert not window.may_write()
    _granted(window, cap=25, used=12)
    assert window.may_write()


def test_a_lease_goes_to_the_next_process_whole_and_leaves_the_one_before_nothing() -> None:
    """The same limit, the same end, and the books know no other process than the one before."""
    clocks = _Clocks()
    before, after = _window(clocks), _window(clocks, remembers_share=False)
    _granted(before, cap=25)
    clocks.pass_(5)
    told = json.loads(json.dumps(before.hand_over()))
    assert after.inherit(told)
    assert after.limit_requests == 25
    assert (after.requests.instance, after.requests.held) == (before.requests.instance, 25)
    assert not before.fits(0, clocks.boot_s)
    assert not before.may_write()
    following = after.requests.begin(after.now(), used=0, demand=0)
    assert (following.number, following.ack) == (2, 1)
    after.requests.failed(number=2)
    clocks.pass_(TERMS.lease_ms / 1000 - 5)
    assert not after.fits(0, clocks.boot_s)


def test_a_process_that_must_go_on_after_all_asks_first() -> None:
    clocks = _Clocks()
    window = _window(clocks)
    _granted(window, cap=25)
    window.hand_over()
    window.take_back()
    assert (window.limit_requests, window.requests.held) == (0, UNKNOWN)
    _granted(window, cap=9)
    assert window.limit_requests == 9


@pytest.mark.parametrize("told", [None, [], [{}], [{"instance": "i"}], ["x"], [None, None]])
def test_what_is_no_lease_is_not_gone_on_with(told: object) -> None:
    window = _window(_Clocks(), remembers_share=False)
    assert not window.inherit(told)
    assert window.limit_requests == 0
