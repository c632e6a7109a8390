"""Keys of the public client: refused, rotated, read anew."""

from __future__ import annotations

import asyncio

import pytest

from ai_client import AIAPIClient, KeyProvider
from ai_client.errors import (
    AuthenticationError,
)
from ai_client.testing import Simulator, SimulatorOptions
from tests.client.admission.scheduling import until

KEY = "hs_test_0123456789abcdef"
HELLO = [{"role": "user", "content": "hello there"}]


async def test_a_refused_key_is_not_tried_again() -> None:
    """One arrival, one clear error without the key."""
    options = SimulatorOptions(keys=frozenset({"hs_test_another_key"}))
    async with Simulator(options) as upstream, AIAPIClient(KEY, upstream.base_url) as client:
        with pytest.raises(AuthenticationError) as caught:
            await client.chat_completion(HELLO)
    assert upstream.counts.arrivals == 1
    assert KEY not in str(caught.value)
    assert caught.value.key_fingerprint == client.keys.current.fingerprint


async def test_a_request_refused_during_a_rotation_is_sent_once_more_with_the_new_key() -> None:
    """No request fails while the key is rotated."""
    new = "hs_test_the_new_one_123"
    options = SimulatorOptions(keys=frozenset({KEY, new}), latency_ms=1)
    async with Simulator(options) as upstream, AIAPIClient(KEY, upstream.base_url, 20, None) as client:

        async def stream_of_requests() -> None:
            for _ in range(40):
                await client.chat_completion(HELLO)

        workers = [asyncio.ensure_future(stream_of_requests()) for _ in range(10)]
        await until(lambda: upstream.counts.answered > 100)
        client.keys.rotate(KEY, following=new)
        upstream.accepted_keys.discard(KEY)
        await asyncio.gather(*workers)
    assert upstream.counts.by_status[401] > 0
    assert upstream.counts.by_status[200] == 400


async def test_a_rotated_key_is_read_from_its_source_when_the_old_one_is_refused() -> None:
    """The upstream may know before this process is told."""
    new = "hs_test_the_new_one_123"
    keys = KeyProvider(KEY, reload=lambda: new)
    async with (
        Simulator(SimulatorOptions(keys=frozenset({new}))) as upstream,
        AIAPIClient(keys, upstream.base_url) as client,
    ):
        assert await client.chat_completion(HELLO)
    assert [arrival.status for arrival in upstream.arrivals] == [401, 200]


async def test_a_key_is_rotated_under_a_running_client() -> None:
    """`reconfigure` swaps it for the next attempt."""
    async with Simulator() as upstream, AIAPIClient(KEY, upstream.base_url) as client:
        await client.chat_completion(HELLO)
        upstream.accepted_keys.add("hs_test_the_new_one_123")
        client.reconfigure(api_key="hs_test_the_new_one_123")
        await client.chat_completion(HELLO)
    assert upstream.counts.by_status == {200: 2}
