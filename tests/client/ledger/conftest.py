"""A ledger of dollars on a clock that a test moves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_client.platform.clock import ManualClock
from tests.client.ledger.ledger_stage import NOV_24, Stage


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(wall_s=NOV_24)


@pytest.fixture
def stage(tmp_path: Path, clock: ManualClock) -> Iterator[Stage]:
    made = Stage(tmp_path / "ledger.sqlite", clock)
    yield made
    for ledger in made.made:
        ledger.close()
