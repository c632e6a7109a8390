"""The service runs on uvloop, scripts on what asyncio has: transports must suit both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from ai_client.transport.base import Transport, TransportOptions
from tests.client.transport.calls import KINDS, Make


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Each test runs once on each."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=list(KINDS))
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """Makes transports of one kind, and closes them."""
    made: list[Transport] = []

    def build(**options: object) -> Transport:
        chosen = TransportOptions(**options)  # type: ignore[arg-type]
        transport = KINDS[request.param](chosen)
        made.append(transport)
        return transport

    yield build
    for transport in made:
        await transport.aclose()
