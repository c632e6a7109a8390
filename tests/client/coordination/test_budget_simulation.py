"""Many seeds of budgets that hosts share, and each rule of it left out."""

from __future__ import annotations

import pytest

from tests.client.coordination.__main__ import broken
from tests.client.coordination.budget_mutants import MUTANTS
from tests.client.coordination.budget_simulation import World

_CHUNK = 25


@pytest.mark.parametrize("first", range(0, 100, _CHUNK))
def test_no_budget_is_overspent_and_all_find_their_way_back(first: int) -> None:
    stories = broken(range(first, first + _CHUNK), World)
    assert not stories, "\n".join(stories)


def test_a_seed_replays() -> None:
    """A failing seed is a line that replays."""
    first, again = World(7).run(), World(7).run()
    assert first.billed == again.billed
    assert first.log == again.log


@pytest.mark.parametrize("name", MUTANTS)
def test_the_simulation_finds_a_rule_that_is_missing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each rule is needed: without it this seed overspends."""
    seed, target, attribute, broken_rule = MUTANTS[name]
    monkeypatch.setattr(target, attribute, broken_rule)
    (story,) = broken(range(seed, seed + 1), World)
    assert " spent of " in story
