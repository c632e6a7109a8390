"""The public client over an httpx client of its user's own."""

from __future__ import annotations

import json

import httpx
import pytest

from ai_client import AIAPIClient
from ai_client.contract.options import ClientOptions, RetryOptions
from ai_client.errors import (
    MalformedResponseError,
    ServerError,
)

KEY = "hs_test_0123456789abcdef"
HELLO = [{"role": "user", "content": "hello there"}]


async def test_an_httpx_client_of_ones_own_is_used_and_not_closed() -> None:
    """With all that its owner has set up: here a mock transport."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        choices = [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]
        usage = {"prompt_tokens": 5, "completion_tokens": 2}
        return httpx.Response(200, json={"model": "gpt-4.1", "choices": choices, "usage": usage})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http_client:
        async with AIAPIClient(KEY, "http://upstream.test/v1", http_client=http_client) as client:
            assert (await client.chat_completion(HELLO))["model"] == "gpt-4.1"
            assert client.get_stats()["input_tokens"] == 5
        assert not http_client.is_closed
    assert str(seen[0].url) == "http://upstream.test/v1/chat/completions"
    assert seen[0].headers["authorization"] == f"Bearer {KEY}"


async def test_unknown_parameters_go_upstream_untouched() -> None:
    """New features of the API need no new client."""
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        return httpx.Response(200, json={"choices": [{"index": 0, "message": {"content": "hi"}}]})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http_client:
        client = AIAPIClient(KEY, "http://upstream.test/v1", http_client=http_client)
        await client.chat_completion(HELLO, brand_new={"deep": [1, None, "ä"]})
    assert json.loads(bodies[0])["brand_new"] == {"deep": [1, None, "ä"]}


@pytest.mark.parametrize("body", ["[]", "no json", '{"choices": [', ""])
async def test_an_answer_that_is_no_json_object_is_malformed(body: str) -> None:
    """Not passed on as if it were one."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text=body))
    async with httpx.AsyncClient(transport=transport) as http_client:
        client = AIAPIClient(KEY, "http://upstream.test/v1", http_client=http_client)
        with pytest.raises(MalformedResponseError):
            await client.chat_completion(HELLO)


async def test_an_error_inside_a_200_is_an_error() -> None:
    """Some proxies answer so."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"error": {"message": "overloaded"}}))
    async with httpx.AsyncClient(transport=transport) as http_client:
        once = ClientOptions(retry=RetryOptions(max_retries=0))
        client = AIAPIClient(KEY, "http://upstream.test/v1", http_client=http_client, options=once)
        with pytest.raises(ServerError, match="overloaded"):
            await client.chat_completion(HELLO)
