"""Many seeds of batches that hosts share, and each rule of them left out."""

from __future__ import annotations

import pytest

from tests.client.coordination.__main__ import broken
from tests.client.coordination.batch_mutants import MUTANTS
from tests.client.coordination.batch_simulation import World

_CHUNK = 15


@pytest.mark.parametrize("first", range(0, 60, _CHUNK))
def test_every_line_has_one_result_whatever_befalls(first: int) -> None:
    """And a line is sent again only if it was in flight."""
    stories = broken(range(first, first + _CHUNK), World)
    assert not stories, "\n".join(stories)


def test_a_seed_replays() -> None:
    """A failing seed is a line that replays."""
    first, again = World(7).run(), World(7).run()
    assert first.sent == again.sent
    assert first.log == again.log


@pytest.mark.parametrize("name", MUTANTS)
def test_the_simulation_finds_a_missing_rule(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each rule is needed: without it this seed breaks a promise."""
    seed, target, attribute, broken_rule = MUTANTS[name]
    monkeypatch.setattr(target, attribute, broken_rule)
    assert broken(range(seed, seed + 1), World)
