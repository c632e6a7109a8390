"""Errors that gateways were reported to lose or to pass for answers, between the real service and a raw upstream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from tests.client.gateway.report_stage import Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")
HELLO = [{"role": "user", "content": "hello"}]
# Each test has a model of its own, whose breaker the others leave alone.
NUMBERS = count()
MESSAGE: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"id": "m", "content": [], "usage": {"input_tokens": 3}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "one"}},
]
RESPONSE: list[dict[str, Any]] = [
    {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}},
    {"type": "response.output_text.delta", "delta": "one"},
]
KINDS = [
    "text/event-stream",
    "Text/Event-Stream; charset=UTF-8",
    "application/json",
    "application/octet-stream",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One service a module."""
    async with staged(tmp_path_factory.mktemp("errors")) as made:
        yield made


def chat(**members: object) -> dict[str, object]:
    return {"model": f"m-{next(NUMBERS)}", "messages": HELLO, **members}


def last_event(text: str) -> Any:
    return json.loads(text.strip().rpartition("data: ")[2])


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cut_message_is_none_whatever_its_stream_is_called(stage: Stage, kind: str) -> None:
    """BerriAI/litellm#32159: without its last event it is no answer, and what is a stream of events is called one."""
    stage.stream(*MESSAGE, kind=kind)
    answer = await stage.client.post("/v1/messages", json=chat(stream=True, max_tokens=9))
    assert answer.headers["content-type"].lower().startswith("text/event-stream")
    assert last_event(answer.text)["type"] == "error"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cut_response_ends_as_a_failed_one(stage: Stage, kind: str) -> None:
    """BerriAI/litellm#40243, diegosouzapw/OmniRoute#13431: Codex goes by the type, OpenAI's SDKs by an `error`."""
    stage.stream(*RESPONSE, kind=kind)
    body = {"model": f"m-{next(NUMBERS)}", "input": "hello", "stream": True}
    answer = await stage.client.post("/v1/responses", json=body)
    event = last_event(answer.text)
    assert answer.text.count("event: response.failed\n") == 1
    assert event["type"] == "response.failed"
    assert event["response"]["status"] == "failed"
    assert event["response"]["error"]["code"] == event["error"]["code"] == "connection_lost"
    sdk = openai.AsyncOpenAI(
        api_key="unused", base_url="http://localhost/v1", http_client=stage.client, max_retries=0
    )
    with pytest.raises(openai.APIError, match="ended the stream"):
        async for _ in await sdk.responses.create(model=f"m-{next(NUMBERS)}", input="hello", stream=True):
            pass


@pytest.mark.parametrize("status", [301, 307, 308])
async def test_a_redirect_says_where_to(stage: Stage, status: int) -> None:
    """tiylabs/tiygate#26, sigbit/mcp-auth-proxy#115: no key follows it; the error names the address and what to do."""
    stage.whole(
        None,
        status=status,
        head="location: https://user:hs_test_secret@other.example/v1/?key=hs_test_other\r\n",
    )
    answer = await stage.client.post("/v1/chat/completions", json=chat())
    message = answer.json()["error"]["message"]
    assert answer.status_code == 502
    assert "other.example/v1/" in message
    assert "base_url" in message
    assert "secret" not in message
    assert "key=" not in message


@pytest.mark.parametrize(
    "members",
    [
        {
            "innererror": {
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": {"hate": {"filtered": True}},
            }
        },
        {"failed_generation": '<function=read={"path": "a"}</function>'},
        {"metadata": {"raw": "no such voice", "provider_name": "Azure"}},
    ],
)
async def test_what_programs_read_of_an_error_is_kept(stage: Stage, members: dict[str, object]) -> None:
    """BerriAI/litellm#16231 (Azure), tashfeenahmed/freellmapi#291 (Groq): beside the message, with no key in it."""
    stage.whole({"error": {"message": "refused", "code": "content_filter", **members}}, status=400)
    answer = await stage.client.post("/v1/chat/completions", json=chat())
    assert answer.status_code == 400
    assert answer.json()["error"].items() >= members.items()
    stage.whole(
        {"error": {"message": "refused", "metadata": {"raw": "Bearer hs_test_0123456789"}}}, status=400
    )
    answer = await stage.client.post("/v1/chat/completions", json=chat())
    assert "0123456789" not in answer.text


async def test_speech_is_heard_as_it_comes(stage: Stage) -> None:
    """BerriAI/litellm#33974, gpustack/gpustack#4719: not when the last of it is there."""
    stage.answer = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 8\r\n\r\nRIFF"
    body = {"model": f"m-{next(NUMBERS)}", "input": "hello", "voice": "alloy"}
    async with asyncio.timeout(10), stage.client.stream("POST", "/v1/audio/speech", json=body) as answer:
        assert answer.headers["content-type"] == "audio/mpeg"
        assert await anext(answer.aiter_raw()) == b"RIFF"


async def test_speech_that_is_cut_has_no_end(stage: Stage) -> None:
    """An error in words would be noise behind it."""
    head = "HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\nconnection: close\r\ncontent-length: 8\r\n\r\n"
    stage.answer = head.encode() + b"RIFF"
    body = {"model": f"m-{next(NUMBERS)}", "input": "hello", "voice": "alloy"}
    came = []
    with pytest.raises(httpx.RemoteProtocolError):
        async with stage.client.stream("POST", "/v1/audio/speech", json=body) as answer:
            came += [piece async for piece in answer.aiter_raw()]
    assert b"".join(came) in (b"", b"RIFF")


@pytest.mark.parametrize(
    ("kind", "content", "status"),
    [
        ("application/json", b'{"error": {"message": "no such voice", "code": 400}}', 400),
        ("application/octet-stream", b'{"error": {"message": "no such voice", "code": 400}}', 400),
        ("text/html; charset=utf-8", b"<html>sign in</html>", 502),
        ("audio/mpeg", b"", 502),
        ("application/json", b'{"audio": "UklGRg=="}', 200),
        ("audio/wav", b"{ and no JSON", 200),
    ],
)
async def test_what_is_no_speech_has_its_status(stage: Stage, kind: str, content: bytes, status: int) -> None:
    """What may be something else than sound is looked at before its head goes out."""
    stage.whole(content, kind=kind)
    body = {"model": f"m-{next(NUMBERS)}", "input": "hello", "voice": "alloy"}
    answer = await stage.client.post("/v1/audio/speech", json=body)
    assert answer.status_code == status, answer.text
    if status == 200:
        assert answer.content == content


async def test_events_of_speech_come_one_by_one(stage: Stage) -> None:
    """BerriAI/litellm#33974: `stream_format` asks for them, no `stream` does."""
    events = b'data: {"type": "speech.audio.delta", "audio": "UklG"}\n\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 1000\r\n\r\n"
    stage.answer = head + events
    body = {"model": f"m-{next(NUMBERS)}", "input": "hello", "voice": "alloy", "stream_format": "sse"}
    async with asyncio.timeout(10), stage.client.stream("POST", "/v1/audio/speech", json=body) as answer:
        assert await anext(answer.aiter_raw()) == events


@pytest.mark.parametrize(
    ("word", "is_streamed"), [("true", True), ("True", True), ("False", False), ("1", None)]
)
async def test_a_form_says_whether_it_is_streamed(stage: Stage, word: str, is_streamed: bool | None) -> None:
    """Portkey-AI/gateway#1376: in a form it is a text, which programs in Python write with a capital."""
    events = b'data: {"type": "transcript.text.delta", "delta": "a"}\n\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 1000\r\n\r\n"
    stage.answer = head + events
    if not is_streamed:
        stage.whole({"text": "a"})
    fields, files = {"model": f"m-{next(NUMBERS)}", "stream": word}, {"file": ("a.wav", b"RIFF")}
    async with (
        asyncio.timeout(10),
        stage.client.stream("POST", "/v1/audio/transcriptions", data=fields, files=files) as answer,
    ):
        assert answer.status_code == (400 if is_streamed is None else 200)
        if is_streamed is not None:
            assert await anext(answer.aiter_raw()) == (events if is_streamed else b'{"text": "a"}')


async def test_a_response_that_thinks_long_is_seen_to_begin(stage: Stage) -> None:
    """vercel/ai#18154: what it begins with waits for what comes behind it, in case it fails, but not for long."""
    begin = b'event: response.created\ndata: {"type": "response.created", "response": {"id": "resp_1"}}\n\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 1000\r\n\r\n"
    stage.answer = head + begin
    body = {"model": f"m-{next(NUMBERS)}", "input": "hello", "stream": True}
    async with asyncio.timeout(10), stage.client.stream("POST", "/v1/responses", json=body) as answer:
        assert await anext(answer.aiter_raw()) == begin
