"""The memory of limits: never less than was sent, whatever the times, and whoever is killed."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from ai_client.admission.meter_log import MeterLog
from ai_client.admission.meters import Cost, Meters
from ai_client.contract.limits import ModelLimits
from ai_client.errors import DeadlineExceeded
from ai_client.platform.clock import ManualClock
from tests.client.admission.scheduling import turn

START_S = 1_800_000_000.0


@pytest.mark.parametrize("seed", range(20))
def test_no_moment_counts_less_than_was_sent_before_it(tmp_path: Path, seed: int) -> None:
    """Of any window, read at any time: what counts still counts there, and nothing counts for much longer."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    span_s = draw.choice((1.0, 10.0, 60.0, 86_400.0))
    log = MeterLog(tmp_path)
    region = log.region("model/day")
    assert region is not None
    sent: list[tuple[float, int]] = []
    now_s = START_S
    for _ in range(300):
        now_s += draw.expovariate(100 / span_s)
        tokens = draw.randrange(1000)
        log.add(region, span_s=span_s, at_s=now_s, requests=1, tokens=tokens)
        sent.append((now_s, tokens))
        entries = log.entries("model/day", span_s=span_s, now_s=now_s)["entries"]
        counting = [entry for entry in entries if entry[0] + span_s > now_s]
        exact = [tokens for at_s, tokens in sent if at_s + span_s > now_s]
        wide = [tokens for at_s, tokens in sent if at_s + span_s * (1 + 2 / 60) > now_s]
        assert len(exact) <= sum(entry[1] for entry in counting) <= len(wide)
        assert sum(exact) <= sum(entry[2] for entry in counting) <= sum(wide)
    log.close()


def test_processes_beside_each_other_are_read_together(tmp_path: Path) -> None:
    """Each has a file of its own, which the next one takes over once it is dead; a window that is no more is left."""
    first, second = MeterLog(tmp_path), MeterLog(tmp_path)
    for log, tokens in ((first, 5), (second, 7)):
        region = log.region("gpt/day")
        assert region is not None
        log.add(region, span_s=60.0, at_s=START_S, requests=1, tokens=tokens)
    first.close()
    third = MeterLog(tmp_path)
    found = third.entries("gpt/day", span_s=60.0, now_s=START_S)["entries"]
    assert sorted(entry[1:] for entry in found) == [[1, 5], [1, 7]]
    assert third.entries("other", span_s=60.0, now_s=START_S)["entries"] == []
    assert third.region("gpt/day") == 0
    second.close()
    third.close()


def test_a_spoilt_file_spoils_nothing(tmp_path: Path) -> None:
    """What makes no sense in it counts nothing, or what it says; the process goes on."""
    (tmp_path / "meters-1.map").write_bytes(b"\xff" * 5000)
    log = MeterLog(tmp_path)
    assert log.entries("gpt/day", span_s=60.0, now_s=START_S)["entries"] == []
    assert log.region("gpt/day") is not None
    log.close()


async def test_a_killed_process_forgets_no_day(tmp_path: Path) -> None:
    """What was sent counts in the next one, with what it really used; what was only reserved does not."""
    clock = ManualClock()
    limits = {"gpt": ModelLimits(tokens_per_day=100, requests_per_minute=10)}
    log = MeterLog(tmp_path)
    before = Meters(limits, clock=clock, network_delay_s=0.0)
    before.keep_in(log)
    for used in (30, None):
        [permit] = await before.acquire(
            label="gpt", upstream="", cost=Cost(40, 10), priority=5, deadline_at_s=None
        )
        if used is not None:
            permit.sent(clock.monotonic())
            permit.settle(Cost(20, used - 20))
    log.close()  # as a kill does: what is noted is on disk
    clock.advance(3600)
    after = Meters(limits, clock=clock, network_delay_s=0.0)
    again = MeterLog(tmp_path)
    after.recall(again)
    [day] = [entry for name, entry in after.snapshot()["gpt"].items() if name.startswith("day")]
    assert [entry[1:] for entry in day["entries"]] == [[1, 30]]
    again.close()


@pytest.mark.parametrize("limits", [ModelLimits(requests_per_minute=1), ModelLimits(requests_per_minute=9)])
async def test_another_limit_counts_what_was_sent_under_the_one_before(limits: ModelLimits) -> None:
    """Raised or lowered by a reload: any minute holds no more than the larger, and from then on the one that holds."""
    clock = ManualClock()
    meters = Meters({"gpt": ModelLimits(requests_per_minute=5)}, clock=clock, network_delay_s=0.0)

    async def send(now: Meters) -> bool:
        late = clock.monotonic() + 0.001
        work = now.acquire(label="gpt", upstream="", cost=Cost(1, 1), priority=5, deadline_at_s=late)
        task = asyncio.create_task(work)
        await turn()
        clock.advance(0.002)
        try:
            [permit] = await task
        except DeadlineExceeded:
            return False
        permit.sent(clock.monotonic())
        return True

    assert [await send(meters) for _ in range(6)] == [True] * 5 + [False]
    clock.advance(30)
    changed = Meters({"gpt": limits}, clock=clock, network_delay_s=0.0, before=meters)
    assert sum([await send(changed) for _ in range(10)]) == max(0, (limits.requests_per_minute or 0) - 5)
    clock.advance(31)
    held = max(0, (limits.requests_per_minute or 0) - 5)
    assert sum([await send(changed) for _ in range(10)]) == (limits.requests_per_minute or 0) - held
