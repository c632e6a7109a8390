"""An engine for the scripts that run in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.client.coordination.engine import RealEngine, programs


@pytest.fixture(params=programs())
def link(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[redis.Redis]:
    """A connection to one of its own, of each program that this machine has."""
    engine = RealEngine(request.param, tmp_path).start()
    with redis.Redis(unix_socket_path=str(engine.socket)) as connection:
        yield connection
    engine.stop()
