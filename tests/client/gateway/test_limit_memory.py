"""Limits of models, and models that are parked, on the real service: a kill forgets neither."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from ai_client.admission.meter_log import MeterLog
from ai_client.client import AIAPIClient
from ai_client.gateway.process.limit_memory import LimitMemory
from ai_client.testing import Fault, Simulator
from tests.client.service_rig import Rig, running_service, until

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}


@asynccontextmanager
async def killed(folder: Path, simulator: Simulator, extra: str) -> AsyncIterator[Rig]:
    """A service that dies at the end."""
    async with running_service(folder, simulator, extra=extra) as rig:
        yield rig
        rig.process.send_signal(signal.SIGKILL)
        await rig.process.wait()


async def test_a_days_limit_outlives_a_kill(tmp_path: Path) -> None:
    """What was sent yesterday evening is not sent again because the service died at night."""
    extra = "rate_limit = 6000\n[limit gpt-4.1]\nrequests_per_day = 2\n[models]\nfallback =\n"
    async with Simulator() as simulator:
        async with killed(tmp_path, simulator, extra) as rig, rig.client() as client:
            for seed in range(2):
                answer = await client.post("/v1/chat/completions", json=CHAT | {"seed": seed})
                assert answer.status_code == 200, answer.text
        async with running_service(tmp_path, simulator, extra=extra) as rig, rig.client() as client:
            late = {"x-ai-deadline": "0.5"}
            answer = await client.post("/v1/chat/completions", json=CHAT | {"seed": 3}, headers=late)
            assert answer.status_code == 504, answer.text
            other = CHAT | {"model": "claude-sonnet-4.5"}
            assert (await client.post("/v1/chat/completions", json=other)).status_code == 200
        assert len(simulator.arrivals) == 3


async def test_a_disk_that_had_no_room_at_the_start_is_tried_again(tmp_path: Path) -> None:
    """Here: a folder in the place of the file. What was sent before there was room counts, too."""
    extra = "rate_limit = 6000\n[limit gpt-4.1]\nrequests_per_day = 2\n[models]\nfallback =\n"
    state = {"STATE_DIRECTORY": str(tmp_path / "state")}
    place = tmp_path / "state" / "window" / "meters-1.map"
    place.mkdir(parents=True)
    async with Simulator() as simulator:
        async with (
            running_service(tmp_path, simulator, extra=extra, environment=state) as rig,
            rig.client() as client,
        ):
            for seed in range(2):
                answer = await client.post("/v1/chat/completions", json=CHAT | {"seed": seed})
                assert answer.status_code == 200, answer.text
            place.rmdir()
            await until(lambda: place.is_file() and any(place.read_bytes()), what="the limits to be kept")
            rig.process.send_signal(signal.SIGKILL)
            await rig.process.wait()
        async with (
            running_service(tmp_path, simulator, extra=extra, environment=state) as rig,
            rig.client() as client,
        ):
            late = {"x-ai-deadline": "0.5"}
            answer = await client.post("/v1/chat/completions", json=CHAT | {"seed": 3}, headers=late)
            assert answer.status_code == 504, answer.text


async def test_a_parked_model_stays_parked_after_a_kill(tmp_path: Path) -> None:
    """The caller is told at once, with the time that the upstream asked for, and the upstream is left alone."""
    extra = "rate_limit = 6000\n[models]\nfallback =\n"
    async with Simulator() as simulator:
        simulator.faults.add(Fault("status", 429, retry_after="7200"), count=1)
        async with killed(tmp_path, simulator, extra) as rig, rig.client() as client:
            answer = await client.post("/v1/chat/completions", json=CHAT)
            assert answer.status_code == 429, answer.text
        asked = len(simulator.arrivals)
        async with running_service(tmp_path, simulator, extra=extra) as rig, rig.client() as client:
            answer = await client.post("/v1/chat/completions", json=CHAT)
            assert answer.status_code == 429, answer.text
            assert 7000 < float(answer.headers["retry-after"]) <= 7200
        assert len(simulator.arrivals) == asked


@pytest.mark.parametrize(("first", "second"), [(2, 4), (4, 2)])
async def test_a_reload_raises_one_limit_and_lowers_another(tmp_path: Path, first: int, second: int) -> None:
    """In one step, whichever comes first in the file: what went before counts under both."""
    text = (
        "rate_limit = 6000\n[models]\nfallback =\n[limit gpt-4.1]\nrequests_per_minute = {}\n"
        "[limit deepseek-v3.2]\nrequests_per_minute = {}\n"
    )
    async with (
        Simulator() as simulator,
        running_service(tmp_path, simulator, extra=text.format(first, second)) as rig,
        rig.client() as client,
    ):

        async def goes(model: str) -> int:
            """How many of six go at once."""
            late = {"x-ai-deadline": "0.5"}
            bodies = [CHAT | {"model": model, "seed": time.perf_counter_ns() + n} for n in range(6)]
            asked = [client.post("/v1/chat/completions", json=body, headers=late) for body in bodies]
            return [answer.status_code for answer in await asyncio.gather(*asked)].count(200)

        assert (await goes("gpt-4.1"), await goes("deepseek-v3.2")) == (first, second)
        rig.set_config(simulator.base_url, text.format(second, first))
        assert (await rig.command("reload")).code == 0
        more = max(0, second - first), max(0, first - second)
        assert (await goes("gpt-4.1"), await goes("deepseek-v3.2")) == more


async def test_limits_that_can_not_be_read_keep_nobody_from_serving_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next process was lost, and no descriptor is left: who handed over serves, and knows less."""

    class Client:
        def restore(self, _: object) -> None:
            """What is parked."""

        def remember_limits(self, _: object, *, is_first: bool) -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    memory = LimitMemory(tmp_path)
    client = cast(AIAPIClient, Client())
    memory.begin(client, is_first=False)
    memory.try_again(client)
    memory._meters = MeterLog(tmp_path / "window")
    memory.recall(client)
    memory.close()
    assert [record.message for record in caplog.records] == ["limits_not_kept", "limits_not_known"]
