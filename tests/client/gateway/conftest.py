"""One provider and one service a module, for tests that ask and change nothing of the service itself.

A module may have `SETTINGS`: what its service's `[performance]` says, and sections behind that. Its tests run on the
module's event loop: `pytestmark = pytest.mark.asyncio(loop_scope="module")`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio

from ai_client.testing import Simulator
from tests.client.service_rig import TOKEN, Rig, running_service

USUAL = "rate_limit = 60000"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider() -> AsyncIterator[Simulator]:
    """Without limits or latency."""
    async with Simulator() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, provider: Simulator
) -> AsyncIterator[Rig]:
    """A running service."""
    settings = getattr(request.module, "SETTINGS", USUAL)
    async with running_service(tmp_path_factory.mktemp("rig"), provider, extra=settings) as running:
        yield running


@pytest.fixture
def simulator(provider: Simulator) -> Simulator:
    """The provider, with its counts at nought."""
    provider.counts.arrivals = 0
    return provider


@pytest_asyncio.fixture(loop_scope="module")
async def sdk(rig: Rig) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's, asynchronous, over TCP with a token."""
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{rig.port}/v1", api_key=TOKEN) as client:
        yield client
