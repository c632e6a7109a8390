"""The cache's file by itself: many answers in one transaction."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ai_client.cache.file import CacheFile, StoredAnswer


def answers(numbers: range, text: str) -> list[tuple[bytes, StoredAnswer]]:
    return [
        (hashlib.sha256(str(number).encode()).digest(), StoredAnswer(1.0, 2.0, text, f"{number}".encode()))
        for number in numbers
    ]


@pytest.mark.parametrize("count", [1, 127, 128, 129, 300])
def test_many_answers_are_found_each_under_its_key(tmp_path: Path, count: int) -> None:
    """Rows go out so many a statement, and the rest one by one; places follow each other for all of them."""
    file = CacheFile(tmp_path / "answers-3.1.sqlite", busy_timeout_s=1, makes_file=True)
    try:
        first = answers(range(count), "old")
        file.write(first)
        # Some again, with others that are new.
        second = answers(range(count // 2, count + 200), "new")
        file.write(second)
        assert file.count() == count + 200
        for key, answer in first[: count // 2] + second:
            assert file.read(key) == answer
    finally:
        file.close()
