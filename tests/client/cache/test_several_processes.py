"""Processes that share a cache's folder: each finds what any of them has put."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ai_client.cache.response_cache import ResponseCache
from tests.client.cache.test_response_cache import MEGABYTE, answer
from tests.client.hand_clock import HandClock


def key_of(number: int) -> str:
    """As the cache makes them: a hash."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def put(cache: ResponseCache, *numbers: int) -> None:
    """Answers that are in the file when it returns."""
    for number in numbers:
        cache.put(key_of(number), answer(), ttl_s=3600.0)
    cache.flush()


def test_each_finds_at_once_what_another_has_put(tmp_path: Path) -> None:
    """Before and after its own."""
    caches = [
        ResponseCache(tmp_path, scope="https://up/v1", max_bytes=8 * MEGABYTE, clock=HandClock())
        for _ in range(2)
    ]
    cache, other = caches
    put(cache, 1)
    put(other, 2, 3)
    assert [cache.get(key_of(number)) is not None for number in range(5)] == [False, True, True, True, False]
    put(cache, 4)
    assert [other.get(key_of(number)) is not None for number in range(6)] == [
        *(False, True, True, True, True, False)
    ]
    for each in caches:
        each.close()
