"""The wall clock is set by an hour or a day while the service runs: no limit is passed, nothing hangs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from email.utils import formatdate
from functools import partial
from pathlib import Path

import pytest

from ai_client.admission.meter_log import MeterLog
from ai_client.admission.meters import Cost, Meters
from ai_client.audit.chain import verify
from ai_client.audit.trail import AuditTrail
from ai_client.cache.response_cache import ResponseCache
from ai_client.contract.events import Admitted
from ai_client.contract.limits import ModelLimits
from ai_client.contract.request import Usage
from ai_client.contract.stores import CachedResponse
from ai_client.dialects.error_answers import error_from_answer
from ai_client.errors import BudgetExceeded, RateLimitError
from ai_client.gateway.process.clock_steps import ClockSteps
from ai_client.gateway.process.window_memory import WindowMemory
from ai_client.platform.clock import ManualClock
from ai_client.testing import Simulator
from tests.client.event_samples import settled, tell
from tests.client.gateway.test_key_from import logged
from tests.client.gateway.test_window_memory import sent
from tests.client.ledger.ledger_stage import NOV_24, Stage, dollar_plan, reserve
from tests.client.service_rig import running_service, until

steps = pytest.mark.parametrize("step_s", [3_600.0, -3_600.0, 86_400.0, -86_400.0])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(wall_s=NOV_24)


@pytest.fixture
def stage(tmp_path: Path, clock: ManualClock) -> Iterator[Stage]:
    made = Stage(tmp_path / "ledger.sqlite", clock)
    yield made
    for ledger in made.made:
        ledger.close()


@steps
def test_a_killed_process_forgets_no_minute(tmp_path: Path, clock: ManualClock, step_s: float) -> None:
    """What was sent before the clock was set counts for its minute in the next process, and no longer."""
    memory = WindowMemory(tmp_path, limit_rpm=10, counts_tokens=True)
    watch = ClockSteps(clock, [memory.shift])
    for number in range(5):
        tell(memory, sent(f"r{number}", clock.wall()))
    clock.set_wall(by_s=step_s)
    watch.look()
    tell(memory, settled(request_id="r0", at=clock.wall(), usage=Usage(3, 4)))
    clock.advance(30)
    watch.look()
    memory.close()  # as a kill does: what is noted is on disk
    after = WindowMemory(tmp_path, limit_rpm=10, counts_tokens=True)
    entries = after.load(now_s=clock.wall())["entries"]
    assert sorted(tokens for _, _, tokens in entries) == [0, 0, 0, 0, 7]
    assert all(abs(clock.wall() - 30 - at_s) < 0.1 for at_s, _, _ in entries)
    clock.advance(40)
    assert after.load(now_s=clock.wall())["entries"] == []
    after.close()


@steps
def test_what_never_ends_is_forgotten_though_the_clock_was_set(tmp_path: Path, step_s: float) -> None:
    """Those of an hour that is still to come are no reason to keep all that follow."""
    memory = WindowMemory(tmp_path, limit_rpm=10, counts_tokens=True)
    for number in range(500):
        at_s = NOV_24 + number + (step_s if number > 100 else 0)
        admitted = Admitted(
            at=at_s,
            request_id=f"r{number}",
            tenant="t",
            model="m",
            endpoint="chat/completions",
            priority=5,
            waited_s=0.0,
            reserved_tokens=1,
        )
        tell(memory, admitted)
        tell(memory, sent(f"r{number}", at_s))
    assert memory.remembered < 150
    memory.close()


@steps
async def test_a_killed_process_forgets_no_day(tmp_path: Path, clock: ManualClock, step_s: float) -> None:
    """A model's limit of a day holds over the step and a kill; a day later it is free."""
    limits = {"gpt": ModelLimits(requests_per_day=3)}
    log = MeterLog(tmp_path)
    before = Meters(limits, clock=clock, network_delay_s=0.0)
    before.keep_in(log)
    watch = ClockSteps(clock, [lambda _: before.note_again()])
    for _ in range(3):
        [permit] = await before.acquire(label="gpt", upstream="", cost=Cost(), priority=5, deadline_at_s=None)
        permit.sent(clock.monotonic())
    clock.set_wall(by_s=step_s)
    watch.look()
    log.close()
    again = MeterLog(tmp_path)

    def counted() -> int:
        heir = Meters(limits, clock=clock, network_delay_s=0.0)
        heir.recall(again)
        [day] = heir.snapshot()["gpt"].values()
        return sum(count for _, count, _ in day["entries"])

    clock.advance(86_400 - 60)
    assert counted() == 3
    clock.advance(3_600)
    assert counted() == 0
    again.close()


@steps
async def test_no_budget_is_passed_and_nothing_is_booked_twice(
    stage: Stage, clock: ManualClock, step_s: float
) -> None:
    """A call is booked on the day that it was reserved on; each day has its budget once, though it comes twice."""
    ledger = stage.ledger(dollar_plan(daily=5))
    first = await reserve(ledger, 3)
    clock.set_wall(by_s=step_s)
    if abs(step_s) == 86_400:
        ledger.settle(await reserve(ledger, 5), Usage(0, 5_000))
    with pytest.raises(BudgetExceeded):
        await reserve(ledger, 3)
    ledger.settle(first, Usage(0, 2_000))
    clock.set_wall(by_s=-step_s)
    ledger.settle(await reserve(ledger, 3), Usage(0, 3_000))
    with pytest.raises(BudgetExceeded):
        await reserve(ledger, 1)
    ledger.flush()
    assert stage.totals("2026-11-24") == {"team-a": (0, 5)}
    assert stage.rows("SELECT count(*), sum(cost_nusd) FROM entry WHERE day = '2026-11-24'") == [
        (2, 5 * 10**9)
    ]


@steps
@pytest.mark.parametrize("form", ["date", "epoch"])
def test_a_date_is_read_by_the_clock_of_who_wrote_it(step_s: float, form: str) -> None:
    """An upstream that asks for half a minute is left alone for so long, whatever our own clock says."""
    date = {"date": formatdate(NOV_24, usegmt=True)}
    told = {
        "date": {"retry-after": formatdate(NOV_24 + 30, usegmt=True)},
        "epoch": {"x-ratelimit-remaining": "0", "x-ratelimit-reset": f"{(NOV_24 + 30) * 1000:.0f}"},
    }
    error = error_from_answer(
        429, date | told[form], b"{}", model="m", key_fingerprint="k", request_id="r", wall_s=NOV_24 + step_s
    )
    assert isinstance(error, RateLimitError)
    assert error.retry_after_s == 30


@steps
def test_no_answer_of_the_cache_outlives_its_time(tmp_path: Path, clock: ManualClock, step_s: float) -> None:
    """How old it is can't be told: it is asked for anew."""
    cache = ResponseCache(tmp_path / "cache", scope="u", max_bytes=1_000_000, clock=clock.wall)
    answer = CachedResponse(status=200, headers={}, body=b"{}", model="m")
    cache.put("0" * 64, answer, ttl_s=3_000)
    clock.set_wall(by_s=step_s)
    assert cache.get("0" * 64) is None
    cache.put("0" * 64, answer, ttl_s=3_000)
    assert cache.get("0" * 64) == answer
    cache.close()


@steps
async def test_the_audit_trail_holds(tmp_path: Path, clock: ManualClock, step_s: float) -> None:
    """One chain, in the order of what happened, with the times that the clock told."""
    trail = AuditTrail(tmp_path / "audit", retention_days=90, clock=clock.wall)
    for by_s in (0.0, step_s, -step_s):
        clock.set_wall(by_s=by_s)
        trail(settled(at=clock.wall()))
        trail.flush()
    trail.close()
    assert verify(tmp_path / "audit").problems == ()


# Stands before the service's program: its wall clock is what the machine's says and what a file adds to that.
_SET_CLOCK = """
import os, runpy, sys, time
from pathlib import Path
told, machine_s = Path(os.environ["CLOCK_FILE"]), time.time
time.time = lambda: machine_s() + float(told.read_text() or 0)
sys.argv[0] = "ai-client"
runpy.run_module("ai_client.cli", run_name="__main__", alter_sys=True)
"""


@steps
async def test_a_service_whose_clock_is_set_goes_on_and_keeps_its_limits(
    tmp_path: Path, step_s: float
) -> None:
    """It answers, tells in its log, holds the minute that began before, and so does the next process after a kill."""
    step_file = tmp_path / "step"
    step_file.write_text("0")
    chat = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    extra = "rate_limit = 60\n[limit gpt-4.1]\nrequests_per_minute = 3\n[models]\nfallback =\n"
    start = (sys.executable, "-c", _SET_CLOCK)
    late = {"x-ai-deadline": "0.5"}
    service = partial(running_service, tmp_path, extra=extra, start=start)
    async with Simulator() as simulator:
        async with (
            service(simulator, environment={"CLOCK_FILE": str(step_file)}) as rig,
            rig.client() as client,
        ):
            for number in range(2):
                answer = await client.post("/v1/chat/completions", json=chat | {"seed": number})
                assert answer.status_code == 200, answer.text
            step_file.write_text(str(step_s))
            await until(lambda: "clock_was_set" in logged(tmp_path), what="the step to be noticed")
            third = await client.post("/v1/chat/completions", json=chat | {"seed": 3}, headers=late)
            fourth = await client.post("/v1/chat/completions", json=chat | {"seed": 4}, headers=late)
            assert (third.status_code, fourth.status_code) == (200, 504)
            assert (await client.get("/health")).json()["ok"]
            rig.process.kill()
            await rig.process.wait()
        async with (
            service(simulator, environment={"CLOCK_FILE": str(step_file)}) as rig,
            rig.client() as client,
        ):
            fifth = await client.post("/v1/chat/completions", json=chat | {"seed": 5}, headers=late)
            assert fifth.status_code == 504, fifth.text
