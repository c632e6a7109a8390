"""How long a command asks an engine that gives no answer, and who hears of it."""

from __future__ import annotations

import pytest

from ai_client.batch.shared.engine import ABSENCE_S, REFUSAL_S, patiently
from ai_client.coordination.endpoint import EngineError


class _Engine:
    """Gives no answer for so many calls; time passes only while it is waited for."""

    def __init__(self, silent: int, *, is_lasting: bool) -> None:
        self.left = silent
        self.is_lasting = is_lasting
        self.waited_s = 0.0
        self.told: list[str] = []

    async def call(self) -> str:
        if self.left:
            self.left -= 1
            raise EngineError("no answer", is_lasting=self.is_lasting)
        return "answer"

    async def wait(self, seconds: float) -> None:
        self.waited_s += seconds

    async def ask(self) -> str:
        return await patiently(self.call, wait=self.wait, told=lambda error: self.told.append(str(error)))


async def test_an_engine_that_is_away_is_waited_for_and_that_is_told() -> None:
    engine = _Engine(100, is_lasting=False)
    assert await engine.ask() == "answer"
    assert engine.told == ["no answer"] * 100


@pytest.mark.parametrize(("is_lasting", "most_s"), [(False, ABSENCE_S), (True, REFUSAL_S)])
async def test_it_is_given_up_after_a_while_and_soon_where_it_refuses(
    *, is_lasting: bool, most_s: float
) -> None:
    """A wrong password does not pass by itself; in a few seconds a new one may be there."""
    engine = _Engine(10_000, is_lasting=is_lasting)
    with pytest.raises(EngineError):
        await engine.ask()
    assert engine.waited_s == most_s
