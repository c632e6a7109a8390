"""What a batch host knows of batches that hosts share: some seconds old, and nobody waits for the engine."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from ai_client.coordination.batch_books import BatchBooks
from ai_client.coordination.batch_protocol import NewBatch, NewChunk
from ai_client.coordination.endpoint import EngineError
from ai_client.gateway.watch import batches
from ai_client.gateway.watch.batches import KEPT_S, BatchProgress, SharedBatches
from ai_client.platform.clock import ManualClock
from ai_client.settings import Settings
from ai_client.settings.sections import BatchSettings, CoordinationSettings

SETTINGS = Settings(
    coordination=CoordinationSettings(endpoint="redis://engine"), batch=BatchSettings(mode=True)
)


class _Link:
    """The model, called as the engine is."""

    def __init__(self) -> None:
        self.books = BatchBooks()
        self.is_away = False
        self.looks: list[str] = []

    async def index(self) -> dict[str, str]:
        if self.is_away:
            raise EngineError("away")
        return self.books.index()

    async def look(self, batch: str) -> Any:
        self.looks.append(batch)
        return self.books.look(batch)

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> _Link:
    made = _Link()
    module = SimpleNamespace(batch_link=lambda _: made)
    monkeypatch.setattr(batches.importlib, "import_module", lambda _: module)
    return made


def _begin(link: _Link, name: str, opened_at_s: int, *, lines: int) -> None:
    link.books.open(NewBatch(name, f"id-{name}", opened_at_s, "h", b"", {}))
    link.books.add(f"id-{name}", NewChunk(0, 9, 1, lines, lines, b"x"), room_bytes=100)


async def _told(watch: SharedBatches) -> tuple[BatchProgress, ...] | None:
    """After the look that this call began has ended."""
    watch.newest(SETTINGS)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    if tasks:
        await asyncio.wait(tasks)
    return watch.newest(SETTINGS)


async def test_batches_are_told_oldest_first_until_they_are_fetched(link: _Link) -> None:
    """And one that was seen to be fetched is not looked at again: for a week its name stays."""
    clock = ManualClock()
    watch = SharedBatches(clock)
    _begin(link, "b", 2, lines=5)
    _begin(link, "a", 3, lines=7)
    assert watch.newest(SETTINGS) is None
    assert await _told(watch) == (
        BatchProgress("b", "submitting", 5, 0, 0, 0),
        BatchProgress("a", "submitting", 7, 0, 0, 0),
    )
    link.books.finish("id-b")
    for _ in range(2):
        clock.advance(KEPT_S)
        assert await _told(watch) == (BatchProgress("a", "submitting", 7, 0, 0, 0),)
    assert link.looks.count("id-b") == 2


async def test_it_is_asked_once_in_a_while_and_an_engine_that_is_away_is_told_as_not_known(
    link: _Link,
) -> None:
    clock = ManualClock()
    watch = SharedBatches(clock)
    assert await _told(watch) == ()
    link.is_away = True
    assert await _told(watch) == ()
    clock.advance(KEPT_S)
    assert await _told(watch) is None
    link.is_away = False
    clock.advance(KEPT_S)
    assert await _told(watch) == ()


async def test_hosts_that_are_no_batch_hosts_ask_nothing(link: _Link) -> None:
    watch = SharedBatches(ManualClock())
    for settings in (
        replace(SETTINGS, batch=BatchSettings()),
        replace(SETTINGS, coordination=CoordinationSettings()),
    ):
        assert watch.newest(settings) is None
    assert len(asyncio.all_tasks()) == 1
