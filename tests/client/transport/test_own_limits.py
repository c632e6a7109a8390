"""What this host itself lacks is told as that, and blames no upstream."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from ai_client import AIAPIClient
from ai_client.calls.retry import may_have_been_executed
from ai_client.contract.options import ClientOptions, RetryOptions
from ai_client.dialects.body_reader import MOST_VALUES, read_body
from ai_client.errors import HostResourcesError, MalformedResponseError
from ai_client.testing import Simulator
from ai_client.transport.base import AnswerRoom, WireRequest
from tests.client.transport.calls import Make
from tests.client.transport.upstreams import Connection, serving


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_one = os.dup(0)
    os.close(next_one)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_running_out_of_descriptors_blames_no_model() -> None:
    """No breaker learns of it, no other model is asked, and it goes on when there are some again."""
    options = ClientOptions(retry=RetryOptions(max_retries=0), fallback_chain=("deepseek-v3.2",))
    async with (
        Simulator() as simulator,
        AIAPIClient("hs_test_0123456789abcdef", base_url=simulator.base_url, options=options) as client,
    ):
        with no_descriptor_left():
            for _ in range(30):
                with pytest.raises(HostResourcesError, match="this host"):
                    await client.chat_completion([{"role": "user", "content": "hello"}])
        stats = client.get_stats()
        assert stats["models"]["gpt-4.1"]["breaker"] == "closed"
        assert "deepseek-v3.2" not in stats["models"]
        answer = await client.chat_completion([{"role": "user", "content": "hello"}])
        assert answer["choices"]
        assert stats["in_flight"] == 0


async def test_answers_together_have_a_bound_and_a_small_one_passes(make: Make) -> None:
    """The one that goes beyond it fails as what was sent and may be billed; its memory is free again."""
    half = b"x" * (3 * 1024 * 1024)

    async def handler(connection: Connection) -> None:
        while await connection.read_request():
            await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(half) + half)

    transport = make()
    room = AnswerRoom(2 * 1024 * 1024)
    transport._room = room  # type: ignore[attr-defined]  # the one that ships takes more memory than a test may
    async with serving(handler) as upstream:
        request = WireRequest(method="POST", url=upstream.url, headers={}, body=b"{}")
        with pytest.raises(HostResourcesError) as caught:
            await transport.fetch(request)
        assert may_have_been_executed(caught.value)
        assert room.taken == 0
        room.most_bytes = 16 * 1024 * 1024
        assert (await transport.fetch(request)).body == half
        assert room.taken == 0


async def test_an_answer_without_end_is_its_upstreams_fault(make: Make) -> None:
    """It is given up at 256 MB, and blamed on whoever sends it: the memory here was all there."""
    piece = b"100000\r\n" + b"x" * 2**20 + b"\r\n"

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        with suppress(ConnectionError):
            for _ in range(300):
                await connection.send(piece)

    transport = make()
    async with serving(handler) as upstream:
        request = WireRequest(method="POST", url=upstream.url, headers={}, body=b"{}")
        with pytest.raises(MalformedResponseError, match="over 256 MB"):
            await transport.fetch(request)
    assert transport._room.taken == 0  # type: ignore[attr-defined]
    assert transport.statistics().in_use == 0


def test_an_answer_of_millions_of_values_is_not_parsed() -> None:
    """Its text may be short enough, what it becomes is not."""
    body = b'{"choices": [' + b"[]," * (MOST_VALUES // 2 + 1) + b"[]]}"
    verdict = read_body(body, "chat/completions")
    assert verdict.trouble is not None
    assert "values" in verdict.trouble
