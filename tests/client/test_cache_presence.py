"""Look-ups that need not ask the cache's file, and those that must."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ai_client import cache_presence
from ai_client.cache import ResponseCache
from ai_client.cache_file import CacheFile, StoredAnswer, row_id
from ai_client.cache_presence import Presence
from tests.client.test_cache import MEGABYTE, HandClock, answer

TTL_S = 3600.0
Open = Callable[[], ResponseCache]


def key_of(number: int) -> str:
    """As the cache makes them: a hash."""
    return hashlib.sha256(str(number).encode()).hexdigest()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def opened(tmp_path: Path, clock: HandClock) -> Iterator[Open]:
    """Opens caches on one folder, as several processes do."""
    made: list[ResponseCache] = []

    def build() -> ResponseCache:
        cache = ResponseCache(tmp_path, scope="https://up/v1", max_bytes=8 * MEGABYTE, clock=clock)
        made.append(cache)
        return cache

    yield build
    for cache in made:
        cache.close()


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The keys that files were asked for."""
    asked: list[bytes] = []
    read = CacheFile.read

    def noted(self: CacheFile, key: bytes) -> StoredAnswer | None:
        asked.append(key)
        return read(self, key)

    monkeypatch.setattr(CacheFile, "read", noted)
    return asked


def put(cache: ResponseCache, *numbers: int) -> None:
    for number in numbers:
        cache.put(key_of(number), answer(), ttl_s=TTL_S)
    cache.flush()


def test_what_was_added_is_never_missed_and_little_else_is_found() -> None:
    presence = Presence()
    rows = [row_id(bytes.fromhex(key_of(number))) for number in range(20_000)]
    presence.add(rows)
    assert all(presence.may_have(row) for row in rows)
    others = [row_id(bytes.fromhex(key_of(number))) for number in range(20_000, 40_000)]
    assert sum(presence.may_have(row) for row in others) < 20


def test_what_is_not_there_is_not_looked_up(opened: Open, looked_up: list[bytes]) -> None:
    cache = opened()
    put(cache, 1)
    assert cache.get(key_of(2)) is None
    assert looked_up == []
    assert cache.get(key_of(1)) is not None
    assert looked_up == [bytes.fromhex(key_of(1))]


def test_what_another_process_puts_is_found_a_moment_later(
    opened: Open, clock: HandClock, looked_up: list[bytes]
) -> None:
    """First by the file, then by what was learnt of it."""
    cache, other = opened(), opened()
    put(cache, 1)
    assert cache.get(key_of(2)) is None
    put(other, 2)
    clock.now_s += 0.2
    assert cache.get(key_of(2)) is not None
    cache.flush()
    clock.now_s += 0.2
    looked_up.clear()
    assert cache.get(key_of(3)) is None
    assert looked_up == []
    assert cache.get(key_of(2)) is not None


def test_what_another_process_put_before_our_own_is_learnt_with_it(
    opened: Open, looked_up: list[bytes]
) -> None:
    cache, other = opened(), opened()
    put(cache, 1)
    put(other, 2, 3)
    put(cache, 4)
    assert [cache.get(key_of(number)) is not None for number in range(6)] == [
        *(False, True, True, True, True, False)
    ]
    assert len(looked_up) == 4


def test_a_file_with_many_answers_is_learnt_step_by_step(
    opened: Open, monkeypatch: pytest.MonkeyPatch, looked_up: list[bytes]
) -> None:
    """Until it is known the file is asked; what is put meanwhile, by whomever, is known with the rest."""
    monkeypatch.setattr(cache_presence, "_ROWS_A_STEP", 20)
    earlier = opened()
    put(earlier, *range(25))
    earlier.close()
    cache, other = opened(), opened()
    for number in (25, 26, 27):
        put(other, number + 100)
        assert cache.get(key_of(number)) is None
        put(cache, number)
    assert len(looked_up) == 3
    looked_up.clear()
    there = (*range(28), 125, 126, 127)
    assert all(cache.get(key_of(number)) for number in there)
    assert not any(cache.get(key_of(number)) for number in range(200, 250))
    assert len(looked_up) == len(there)


def test_what_was_deleted_is_forgotten_in_time(
    opened: Open, monkeypatch: pytest.MonkeyPatch, clock: HandClock, looked_up: list[bytes]
) -> None:
    """The filter is made anew when much was added to it."""
    monkeypatch.setattr(cache_presence, "_MOST_ADDED", 3)
    cache = opened()
    put(cache, 1, 2, 3)
    clock.now_s += TTL_S + 60
    put(cache, 4, 5)
    put(cache, 6)
    assert cache.get(key_of(1)) is None
    assert all(cache.get(key_of(number)) for number in (4, 5, 6))
    assert bytes.fromhex(key_of(1)) not in looked_up


def test_a_file_with_more_answers_than_that_is_not_learnt_again_and_again(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is how much came since the filter was made."""
    earlier = opened()
    put(earlier, *range(25))
    earlier.close()
    monkeypatch.setattr(cache_presence, "_MOST_ADDED", 10)
    steps: list[int | None] = []
    rows_from = CacheFile.rows_from

    def noted(self: CacheFile, row: int | None, *, at_most: int) -> list[int]:
        steps.append(row)
        return rows_from(self, row, at_most=at_most)

    monkeypatch.setattr(CacheFile, "rows_from", noted)
    cache = opened()
    for number in range(25, 30):
        put(cache, number)
    assert len(steps) == 1
