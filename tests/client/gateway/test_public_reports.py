"""What programs and providers do that gateways were reported to break, between the real service and a raw upstream.

Each test names its report. What an upstream answered in an odd shape is in `tests/client/corpus` instead.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.client.gateway.report_stage import Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")
SRT = b"1\n00:00:00,000 --> 00:00:03,000\nThe sun rises.\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One service a module."""
    async with staged(tmp_path_factory.mktemp("reports")) as made:
        yield made


async def test_embeddings_of_messages(stage: Stage) -> None:
    """BerriAI/litellm#31178: vLLM embeds pictures by `messages`; without those `input` is missed as ever."""
    stage.whole({"object": "list", "data": [{"index": 0, "embedding": [0.1]}], "usage": {"prompt_tokens": 9}})
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = {"model": "m", "messages": [{"role": "user", "content": [picture]}]}
    answer = await stage.client.post("/v1/embeddings", json=body)
    assert answer.json()["data"][0]["embedding"] == [0.1]
    assert json.loads(stage.requests[-1].partition(b"\r\n\r\n")[2]) == body
    for wrong in ({"model": "m"}, {"model": "m", "messages": "no list"}):
        assert (await stage.client.post("/v1/embeddings", json=wrong)).status_code == 400


async def test_floats_where_base64_was_asked_for(stage: Stage) -> None:
    """BerriAI/litellm#42426: what came is handed on as it is, not taken for what was asked."""
    stage.whole({"data": [{"index": 0, "embedding": [0.5, 0.25]}]})
    body = {"model": "m", "input": "text", "encoding_format": "base64"}
    answer = await stage.client.post("/v1/embeddings", json=body)
    assert answer.json()["data"][0]["embedding"] == [0.5, 0.25]


@pytest.mark.parametrize("path", ["files/file-1", "responses/resp_1"])
@pytest.mark.parametrize(("status", "content"), [(204, None), (200, None), (200, {"deleted": True})])
async def test_a_deletion_is_answered_with_nothing(
    stage: Stage, path: str, status: int, content: object
) -> None:
    """praxis-proxy/ai#415, maximhq/bifrost#955: a 204, or a 200 without a body, as OpenAI's own schema has it."""
    stage.whole(content, status=status)
    answer = await stage.client.delete(f"/v1/{path}")
    assert answer.status_code == status
    assert answer.content == (json.dumps(content).encode() if content else b"")


@pytest.mark.parametrize("word", ["true", "True"])
async def test_a_response_of_the_background_is_resumed(stage: Stage, word: str) -> None:
    """BerriAI/litellm#26762: from an event on; where its stream breaks off, that is told."""
    delta = {"type": "response.output_text.delta", "delta": "x", "sequence_number": 9}
    done = {"type": "response.completed", "sequence_number": 10, "response": {"id": "resp_1"}}
    path = f"/v1/responses/resp_1?stream={word}&starting_after=8"
    stage.stream(delta, done)
    answer = await stage.client.get(path)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.count('"sequence_number"') == 2
    assert stage.requests[-1].startswith(f"GET {path} HTTP/1.1".encode())
    stage.stream(delta)
    assert "ended the stream before its answer was whole" in (await stage.client.get(path)).text


@pytest.mark.parametrize("name", ["Расчет.docx", 'a"b.txt', "a\\b;c.txt", "deux-étoiles.wav"])
async def test_a_files_name_goes_up_as_it_came(stage: Stage, name: str) -> None:
    """fastapi/fastapi#11104, openai/openai-dotnet#72: a form that is written anew for a model as well."""
    stage.whole({"id": "file-1", "text": "heard"})
    for path, fields in (("files", {"purpose": "user_data"}), ("audio/transcriptions", {})):
        files = {"file": (name, b"content", "text/plain")}
        answer = await stage.client.post(f"/v1/{path}", data=fields, files=files)
        assert answer.status_code == 200
        part = httpx.Request("POST", "http://x", files=files).read().partition(b"filename=")[2]
        assert part.partition(b"\r\n")[0] in stage.requests[-1]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("€.mp3".encode(), "€.mp3"),
        ("Müller.mp3".encode(), "Müller.mp3"),
        (b"M\xfcller.mp3", "Müller.mp3"),
        (b"\xff.mp3", "ÿ.mp3"),
    ],
)
async def test_a_files_name_comes_back_as_it_was(stage: Stage, name: bytes, told: str) -> None:
    """unbit/uwsgi#331, karpetrosyan/httpx-aiohttp#28: UTF-8 byte for byte; what is none, as the Latin-1 that it was."""
    stage.answer = (
        b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 3\r\n"
        b'content-disposition: attachment; filename="' + name + b'"\r\n\r\nID3'
    )
    answer = await stage.client.get("/v1/files/file-1/content")
    assert (answer.status_code, answer.content) == (200, b"ID3"), answer.text
    headers = dict(answer.headers.raw)
    assert headers[b"content-disposition"] == f'attachment; filename="{told}"'.encode(), headers


@pytest.mark.parametrize(
    ("form", "kind", "content"),
    [
        ("srt", "text/plain; charset=utf-8", SRT),
        ("srt", "application/json", SRT),
        ("vtt", "text/vtt", b"WEBVTT\n\n00:00.000 --> 00:03.000\nHi\n"),
        ("text", "application/json", b'"quoted"'),
        ("verbose_json", "application/json", b'{"text":"Hi","duration":3.0,"segments":[]}'),
    ],
)
async def test_a_transcript_in_any_form(stage: Stage, form: str, kind: str, content: bytes) -> None:
    """pollinations/pollinations#11458, morioka/tiny-openai-whisper-api#7: byte for byte, whatever its type says."""
    stage.whole(content, kind=kind)
    answer = await stage.client.post(
        "/v1/audio/transcriptions",
        data={"model": "m", "response_format": form},
        files={"file": ("a.wav", b"RIFF")},
    )
    assert (answer.status_code, answer.content) == (200, content)


def _chunk(index: int, delta: dict[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": reason, **more}]}


async def _streamed(stage: Stage, *events: dict[str, Any], end: str = "", **asked: Any) -> str:
    stage.stream(*events, end=end)
    messages = [{"role": "user", "content": str(events)}]
    body = {"model": "m", "messages": messages, "max_tokens": 9, "stream": True} | asked
    return (await stage.client.post("/v1/chat/completions", json=body)).text


async def test_calls_of_tools_without_an_index(stage: Stage) -> None:
    """ollama/ollama#7881, AstrBotDevs/AstrBot#6661: nothing of them is lost, and nothing made up."""
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    events = [
        _chunk(0, {"tool_calls": [call]}),
        _chunk(0, {"tool_calls": [{"function": {"arguments": '{"a": 1}'}}]}),
        _chunk(0, {}, "tool_calls"),
    ]
    text = await _streamed(stage, *events, end="data: [DONE]\n\n")
    assert text == "".join(f"data: {json.dumps(each)}\n\n" for each in events) + "data: [DONE]\n\n"


async def test_of_several_answers_the_last_ends_the_stream(stage: Stage) -> None:
    """BerriAI/litellm#5236, openai/openai-python#434: one that ends early is not the end of the others."""
    begun = [_chunk(0, {"content": "a"}), _chunk(1, {"content": "b"}), _chunk(0, {}, "stop")]
    cut = await _streamed(stage, *begun, n=2)
    assert "ended the stream before its answer was whole" in cut
    whole = await _streamed(stage, *begun, _chunk(1, {}, "stop"), n=2)
    assert whole.endswith("data: [DONE]\n\n")
    assert "error" not in whole


async def test_a_stream_behind_nginx(stage: Stage) -> None:
    """ggml-org/llama.cpp#24774, mostlygeek/llama-swap#236: it must not hold events back; a whole answer it may."""
    stage.stream(_chunk(0, {"content": "a"}, "stop"))
    streamed = await stage.client.post("/v1/chat/completions", json=CHAT | {"stream": True})
    assert streamed.headers["x-accel-buffering"] == "no"
    stage.whole(WHOLE)
    whole = await stage.client.post("/v1/chat/completions", json=CHAT)
    assert "x-accel-buffering" not in whole.headers


async def test_logprobs_in_a_stream(stage: Stage) -> None:
    """BerriAI/litellm#10686, #21932: null or not, beside the reason for the end, they pass as they came."""
    token = {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": None}
    events = [
        _chunk(0, {"content": "a"}, logprobs={"content": [token]}),
        _chunk(0, {"content": ""}, "stop", logprobs=None),
    ]
    text = await _streamed(stage, *events, logprobs=True)
    assert [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")] == events


CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 9}
ASKED = {"model": "m", "input": "hello", "max_output_tokens": 9}
WHOLE = {"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]}
RESPONSE = {"id": "resp_1", "object": "response", "status": "completed", "output": [{"type": "message"}]}


def _sent(stage: Stage) -> tuple[str, Any]:
    head, _, body = stage.requests[-1].partition(b"\r\n\r\n")
    return head.decode().lower(), json.loads(body)


def _zlib_only(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("x-gzip", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
        ("deflate", zlib.compress),
        ("deflate", _zlib_only),
        ("identity", bytes),
        ("deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
    ],
)
async def test_a_compressed_request(stage: Stage, coding: str, pack: Callable[[bytes], bytes]) -> None:
    """sozercan/vekil#6, Wei-Shaw/sub2api#1990: it goes up as plain JSON, and without the header."""
    stage.whole(RESPONSE)
    headers = {"content-type": "application/json", "content-encoding": coding}
    body = pack(json.dumps(ASKED).encode())
    answer = await stage.client.post("/v1/responses", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    head, sent = _sent(stage)
    assert sent == ASKED
    assert "content-encoding" not in head


@pytest.mark.parametrize(
    ("coding", "body", "status", "code"),
    [
        ("br", b"x", 415, "unsupported_content_encoding"),
        ("gzip, gzip, gzip", b"x", 415, "unsupported_content_encoding"),
        ("gzip", b"no gzip", 400, "invalid_encoding"),
        ("gzip", gzip.compress(b"{}" * 99, mtime=0)[:-9], 400, "invalid_encoding"),
        ("gzip", gzip.compress(b" " * 21_000_000, mtime=0), 413, "request_too_large"),
        ("gzip, gzip", gzip.compress(gzip.compress(b" " * 21_000_000), mtime=0), 413, "request_too_large"),
    ],
)
async def test_a_compressed_request_that_is_none(
    stage: Stage, coding: str, body: bytes, status: int, code: str
) -> None:
    """Anionex/agent-vision-toolkit#30: the reason is told, and what is unpacked is bounded as any body is."""
    requests = len(stage.requests)
    for path in ("/v1/responses", "/v1/chat/completions"):
        answer = await stage.client.post(path, content=body, headers={"content-encoding": coding})
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert len(stage.requests) == requests


@pytest.mark.parametrize("kind", ["Application/JSON", "application/json;charset=UTF-8", "text/plain", ""])
async def test_json_by_another_name(stage: Stage, kind: str) -> None:
    """diegosouzapw/OmniRoute#6414, RageAgainstThePixel/OpenAI-DotNet#236: what was read goes up, as plain JSON."""
    stage.whole(RESPONSE)
    twice = b'{"model":"m","input":"hello","max_output_tokens":99999,"max_output_tokens":9}'
    answer = await stage.client.post("/v1/responses", content=twice, headers={"content-type": kind})
    assert answer.status_code == 200
    head, sent = _sent(stage)
    assert sent == ASKED
    assert stage.requests[-1].count(b"max_output_tokens") == 1
    assert "content-type: application/json\r\n" in head


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("/v1/chat/completions/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/openai/deployments/gpt-4.1/chat/completions", "/v1/chat/completions"),
        ("/messages/count_tokens", "/v1/messages/count_tokens"),
    ],
)
async def test_a_wrong_base_url(stage: Stage, path: str, meant: str) -> None:
    """ChatGPTNextWeb/NextChat#4405, BadgerHobbs/OpenAI-API-Gateway#1: the error names the path that is meant."""
    answer = await stage.client.post(path, json=CHAT)
    assert answer.status_code == 404
    assert f"; {meant} is meant. Correct the program's base URL" in answer.json()["error"]["message"]


async def test_a_body_from_powershell(stage: Stage) -> None:
    """Badgerati/Pode#1604: it begins with a byte order mark, which goes no further; of an empty one that is said."""
    for path, body in (("/v1/responses", ASKED), ("/v1/chat/completions", CHAT)):
        stage.whole(RESPONSE if body is ASKED else WHOLE)
        answer = await stage.client.post(path, content=b"\xef\xbb\xbf" + json.dumps(body).encode())
        assert answer.status_code == 200, answer.text
        assert stage.requests[-1].partition(b"\r\n\r\n")[2].startswith(b"{")
    empty = await stage.client.post("/v1/chat/completions", content=b"")
    assert empty.json()["error"]["message"] == "The body is empty: send a JSON object."


async def test_whether_anybody_is_there(stage: Stage) -> None:
    """headroomlabs-ai/headroom#2032: HEAD is answered as GET is, without a body; Claude Code begins with it."""
    for path in ("/", "/v1/models", "/status.json"):
        stage.whole({"object": "list", "data": []})
        answer = await stage.client.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path
    assert (await stage.client.head("/v1/chat/completions")).status_code == 405


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("HEAD", "/v1/chat/completions", "POST"),
        ("GET", "/v1/messages", "POST"),
        ("PUT", "/v1/files", "GET, HEAD, POST"),
        ("PATCH", "/v1/responses/resp_1", "DELETE, GET, HEAD"),
        ("POST", "/v1/models/gpt-4.1", "GET, HEAD"),
        ("POST", "/status.json", "GET, HEAD"),
    ],
)
async def test_a_method_that_a_path_does_not_have(stage: Stage, method: str, path: str, allowed: str) -> None:
    """RFC 9110, 15.5.6: a 405 says which it has."""
    answer = await stage.client.request(method, path)
    assert (answer.status_code, answer.headers.get("allow")) == (405, allowed)


async def test_filters_behind_the_end_of_an_answer(stage: Stage) -> None:
    """microsoft/autogen#6465, AbanteAI/archive-old-cli-mentat#429: Azure's events of its filters end no answer."""
    late = {"index": 0, "finish_reason": None, "content_filter_results": {}, "content_filter_offsets": {}}
    events = [
        {"id": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        _chunk(0, {"role": "assistant", "content": "a"}),
        _chunk(0, {}, "stop"),
        {"id": "", "choices": [late]},
    ]
    text = await _streamed(stage, *events, end="data: [DONE]\n\n")
    assert [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")] == events
    assert text.endswith("data: [DONE]\n\n")
    filtered = await _streamed(stage, events[0], _chunk(0, {}, "content_filter"), end="data: [DONE]\n\n")
    assert "error" not in filtered
    assert '"content_filter"' in filtered


async def test_a_refusal_in_a_stream(stage: Stage) -> None:
    """langchain-ai/langchain#39747: a refusal is an answer, whole and in pieces."""
    events = [
        _chunk(0, {"content": None, "refusal": "I"}),
        _chunk(0, {"refusal": " won't"}),
        _chunk(0, {}, "stop"),
    ]
    text = await _streamed(stage, *events, end="data: [DONE]\n\n")
    assert [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")] == events


@pytest.mark.parametrize("reason", ["pause_turn", "refusal", "model_context_window_exceeded", "max_tokens"])
async def test_messages_that_end_otherwise(stage: Stage, reason: str) -> None:
    """tetsuo-ai/agenc-core#2111: each of Anthropic's reasons ends a whole answer, whatever came before it."""
    usage = {"input_tokens": 9, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "content": [], "usage": usage}
    stage.whole(message | {"stop_reason": reason})
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": reason}]}
    answer = await stage.client.post("/v1/messages", json=body)
    assert answer.json()["stop_reason"] == reason
    events = [
        {"type": "message_start", "message": message},
        {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage},
        {"type": "message_stop"},
    ]
    stage.stream(*events)
    text = (await stage.client.post("/v1/messages", json=body | {"stream": True})).text
    assert [json.loads(line[6:]) for line in text.splitlines() if line] == events
