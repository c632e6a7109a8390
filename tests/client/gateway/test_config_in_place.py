"""A configuration that is written in place: a reload may come while its file is empty, or holds a half."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ai_client.configure.launch import Launch
from ai_client.configure.sources import Sources
from ai_client.gateway.process.service import Service
from ai_client.platform import given_file
from ai_client.platform.clock import ManualClock
from ai_client.testing import Simulator
from tests.client.service_rig import TEST_KEY, running_service, until

_TEXT = (
    "[api]\nbase_url = http://127.0.0.1:1/v1\n[performance]\nrate_limit = {rate}\n"
    "[budget]\ndaily_usd = {usd}\nhard_stop = true\n"
)
BEFORE, AFTER = _TEXT.format(rate=20, usd=5), _TEXT.format(rate=30, usd=500)
# Each is a configuration by itself, of which the last would spend without a bound.
_HALVES = [
    "",
    "# written by hand\n",
    AFTER[: AFTER.index("[budget]")],
    AFTER[: AFTER.index("00\nhard_stop")],
]


class _Stage:
    """A service on a clock that is driven by hand, and its file."""

    def __init__(self, folder: Path) -> None:
        self.file, self.clock = folder / "ai-client.conf", ManualClock()
        self.file.write_text(BEFORE)
        (folder / "key").write_text(TEST_KEY)
        (folder / "state").mkdir()
        sources = Sources(
            config_path=self.file,
            key_file=folder / "key",
            environment={"STATE_DIRECTORY": str(folder / "state")},
            launch=Launch.of(("ai-client",), "ai-client"),
        )
        self.service = Service(sources, operators=frozenset({0}), announce=lambda _: None, clock=self.clock)

    async def reload(self, *texts: str) -> tuple[bool, dict[str, Any]]:
        """Reload, with the file holding each of `texts` in turn: another one after each look of the service.

        Without texts the file is left as it is.
        """
        for text in texts[:1]:
            self.file.write_text(text)
        task = asyncio.create_task(self.service.reload())
        for text in texts[1:]:
            await self._waits(task)
            self.file.write_text(text)
            self.clock.advance(10)
        while not task.done():
            await self._waits(task)
            self.clock.advance(10)
        return task.result()

    async def _waits(self, task: asyncio.Task[Any]) -> None:
        await until(lambda: task.done() or self.clock.next_at_s is not None, what="a look at the file")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[_Stage]:
    made = _Stage(tmp_path)
    yield made
    await made.service._assembly.aclose()
    made.service._window.close()
    made.service._limit_memory.close()


@pytest.mark.parametrize("half", _HALVES)
async def test_a_file_that_is_half_written_is_read_when_it_is_whole(stage: _Stage, half: str) -> None:
    """However short the half is, and though it is right by itself."""
    done, told = await stage.reload(half, AFTER)
    assert done, told
    assert stage.service._settings.budget.daily_usd == 500
    assert stage.service._settings.performance.rate_limit_rpm == 30


async def test_a_file_that_became_empty_is_refused(stage: _Stage) -> None:
    """With the reason, and what was in use stays so; the next reload takes what is written then."""
    for empty in ("", "\n", "# nothing\n[budget]\n"):
        done, told = await stage.reload(empty)
        assert not done
        assert "is empty now, and the configuration in use is not; write it again" in told["error"]
        assert stage.service._settings.budget.daily_usd == 5
    assert (await stage.reload(AFTER))[0]
    assert stage.service._settings.budget.daily_usd == 500


async def test_a_file_that_never_stands_still_is_refused(stage: _Stage) -> None:
    """It is not waited for without end."""
    done, told = await stage.reload(*(AFTER + f"# {number}\n" for number in range(30)))
    assert not done
    assert "is being written all the time; reload when it is done" in told["error"]
    assert stage.service._settings.budget.daily_usd == 5


async def test_fewer_settings_are_taken_once_they_stand_still(stage: _Stage) -> None:
    """A file may become shorter; and one that is as it was is taken at once."""
    assert (await stage.reload(_HALVES[2]))[0]
    assert stage.service._settings.budget.daily_usd is None
    assert (await stage.reload(_HALVES[2]))[1]["changed"] == []


@pytest.mark.parametrize("which", ["ai-client.conf", "key", "key.next", "ca.pem"])
async def test_a_pipe_in_the_place_of_a_file_holds_up_no_reload(
    stage: _Stage, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up with the reason, whichever of the files it is; the next reload takes what is there then."""
    monkeypatch.setattr(given_file, "PATIENCE_S", 0.05)
    (stage.file.parent / "ca.pem").write_text("")
    place = stage.file.with_name(which)
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    text = AFTER + f"[security]\ncert_path = {place}\n" if which == "ca.pem" else AFTER
    done, told = await (stage.reload() if place == stage.file else stage.reload(text))
    assert not done
    assert "is a pipe, and nobody writes to its end" in told["error"]
    assert stage.service._settings.budget.daily_usd == 5
    place.unlink()
    (stage.file.parent / "key").write_text(TEST_KEY)
    assert (await stage.reload(AFTER))[0]
    assert stage.service._settings.budget.daily_usd == 500


async def test_a_thousand_reloads_at_once_are_two(stage: _Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """fluent/fluent-bit#8457: none is dropped, and none reads what another reads: the last text counts."""
    reads: list[int] = []
    settled = stage.service._config.settled

    async def counted() -> bytes | None:
        if reads:
            stage.file.write_text(AFTER)
        reads.append(len(told))
        return await settled()

    monkeypatch.setattr(stage.service._config, "settled", counted)
    told: list[asyncio.Task[tuple[bool, dict[str, Any]]]] = []
    stage.file.write_text(AFTER.replace("500", "50"))
    told.append(asyncio.create_task(stage.service.reload()))
    await until(lambda: stage.clock.next_at_s is not None, what="a look at the file")
    told += [asyncio.create_task(stage.service.reload()) for _ in range(1000)]
    await asyncio.sleep(0)
    while not all(each.done() for each in told):
        await stage._waits(told[-1])
        stage.clock.advance(10)
    assert all(each.result()[0] for each in told)
    assert reads == [1, 1001]
    assert stage.service._settings.budget.daily_usd == 500


async def test_the_service_keeps_its_budget_where_its_file_is_emptied(tmp_path: Path) -> None:
    """A real one: the command fails with the reason, and callers are held to what held before."""
    chat = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1000}
    budget = "rate_limit = 60000\n[budget]\ndaily_usd = 0.000001\nhard_stop = true"
    async with (
        Simulator() as provider,
        running_service(tmp_path, provider, extra=budget) as rig,
        rig.client() as client,
    ):
        rig.config.write_text("")
        answer = await client.post("/control/reload")
        assert answer.json()["ok"] is False
        assert f"{rig.config}: is empty now" in answer.json()["error"]
        refused = await client.post("/v1/chat/completions", json=chat)
        assert refused.json()["error"]["code"] == "budget_exceeded"
