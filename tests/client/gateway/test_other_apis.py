"""Pictures, speech, moderations, reranking and files: by OpenAI's SDK where it has them, against the real service."""

from __future__ import annotations

import asyncio
import http.client
import json
from pathlib import Path

import openai
import pytest

from ai_client.testing import Simulator
from tests.client.service_rig import TOKEN, Rig, running_service, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
PASSED = "pass_through = GET /v1/batches*, /v1/conversations"


async def last_audit(rig: Rig, endpoint: str) -> dict[str, object]:
    """The last call in the trail, once it is one of `endpoint`."""

    def calls() -> list[dict[str, object]]:
        files = sorted(rig.folder.glob("log/audit-*"))
        lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
        return [line for line in lines if "endpoint" in line]

    await until(lambda: calls()[-1:] != [] and calls()[-1]["endpoint"] == endpoint, what="the audit line")
    return calls()[-1]


async def test_a_picture(sdk: openai.AsyncOpenAI, rig: Rig) -> None:
    """Two pictures, and what they used."""
    answer = await sdk.images.generate(model="gpt-4.1", prompt="a cat", n=2)
    assert len(answer.data or ()) == 2
    assert (await last_audit(rig, "images/generations"))["output_tokens"] == 544


async def test_a_form(sdk: openai.AsyncOpenAI, rig: Rig) -> None:
    """A file in a form goes up as it is, and its text comes back; so does an edited picture."""
    heard = await sdk.audio.transcriptions.create(model="gpt-4.1", file=("a.wav", b"RIFF-sound"))
    assert heard.text == "hello world"
    assert (await last_audit(rig, "audio/transcriptions"))["output_tokens"] == 2
    edited = await sdk.images.edit(model="gpt-4.1", image=("a.png", b"a-picture"), prompt="a dog")
    assert len(edited.data or ()) == 1


async def test_an_answer_that_is_no_json(sdk: openai.AsyncOpenAI) -> None:
    """Speech comes back byte for byte, and a transcript as plain text."""
    spoken = await sdk.audio.speech.create(model="gpt-4.1", voice="alloy", input="hello")
    assert spoken.content == b"RIFFhello"
    text = await sdk.audio.transcriptions.create(
        model="gpt-4.1", file=("a.wav", b"RIFF"), response_format="text"
    )
    assert str(text).strip() == "hello world"


async def test_moderation_is_free(sdk: openai.AsyncOpenAI, rig: Rig) -> None:
    """It is admitted and audited, and costs nothing."""
    answer = await sdk.moderations.create(input="I love you")
    assert not answer.results[0].flagged
    assert not (await last_audit(rig, "moderations"))["cost_usd"]


async def test_reranking(rig: Rig) -> None:
    """The best document comes first."""
    body = {"model": "gpt-4.1", "query": "blue sky", "documents": ["red wine", "the blue sky"]}
    async with rig.tcp_client() as client:
        answer = await client.post("/v1/rerank", json=body)
    assert answer.json()["results"][0]["index"] == 1


async def test_the_life_of_a_file(sdk: openai.AsyncOpenAI) -> None:
    """Uploaded, listed, read, deleted, gone."""
    made = await sdk.files.create(file=("a.txt", b"some text"), purpose="user_data")
    assert made.id in [each.id async for each in sdk.files.list()]
    assert (await sdk.files.content(made.id)).content == b"some text"
    await sdk.files.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        await sdk.files.retrieve(made.id)


async def test_what_was_made_belongs_to_its_tenant(sdk: openai.AsyncOpenAI, rig: Rig) -> None:
    """Another tenant, here the uid that calls over the socket, is told that there is no such thing."""
    made = await sdk.responses.create(model="gpt-4.1", input="a secret")
    async with rig.client() as other:
        refused = await other.get(f"/v1/responses/{made.id}")
        following = {"model": "gpt-4.1", "input": "tell me", "previous_response_id": made.id}
        continued = await other.post("/v1/responses", json=following)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
    assert continued.status_code == 404
    assert (await sdk.responses.retrieve(made.id)).id == made.id


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/vector_stores", 404),
        ("POST", "/v1/conversations", 404),
        ("DELETE", "/v1/chat/completions", 405),
        ("GET", "/v1/files/../models", 404),
        ("GET", "/v1/files/a%2f..%2fmodels", 404),
        ("GET", "/v1//models", 404),
        ("PUT", "/v1/responses/resp_1", 405),
    ],
)
async def test_other_paths_are_refused(
    rig: Rig, provider: Simulator, method: str, path: str, status: int
) -> None:
    """What the gateway does not know never goes upstream."""
    arrivals = provider.counts.arrivals
    assert await asyncio.to_thread(status_of, rig.port, method, path) == status
    assert provider.counts.arrivals == arrivals


def status_of(port: int, method: str, path: str) -> int:
    """Of a request whose path goes out as it is: httpx would resolve its dots."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers={"Authorization": f"Bearer {TOKEN}"})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"--x\r\n",
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\ngpt-4.1\r\n',
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\na\r\n'
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nb\r\n--x--\r\n',
    ],
)
async def test_forms_that_are_none_are_refused(rig: Rig, form: bytes) -> None:
    """Cut off, empty, or with a field twice: of two models one would be priced and the other asked."""
    async with rig.tcp_client() as client:
        answer = await client.post(
            "/v1/audio/transcriptions",
            content=form,
            headers={"content-type": "multipart/form-data; boundary=x"},
        )
    assert answer.status_code == 400


async def test_a_path_that_the_operator_lets_through(tmp_path: Path, provider: Simulator) -> None:
    """It reaches the provider with its method and query, and the provider's answer comes back."""
    async with running_service(tmp_path, provider) as rig, rig.client() as client:
        assert (await client.post("/v1/conversations", json={})).json()["error"]["code"] == "unknown_url"
        config = rig.config.read_text()
        rig.config.write_text(config.replace("drain_seconds = 5", f"drain_seconds = 5\n{PASSED}"))
        assert (await client.post("/control/reload")).status_code == 200
        arrivals = provider.counts.arrivals
        answer = await client.post("/v1/conversations?a=b", json={"items": []})
        assert "Unknown request URL: POST /v1/conversations." in answer.json()["error"]["message"]
        assert provider.counts.arrivals == arrivals + 1
        assert (await client.post("/v1/conversations/x", json={})).status_code == 404
        assert (await client.post("/v1/batches", json={})).status_code == 404
    assert provider.counts.arrivals == arrivals + 1


async def test_provider_headers_pass(rig: Rig, provider: Simulator) -> None:
    """Those of the provider's own go up, and no others."""
    headers = {
        "OpenAI-Project": "proj_1",
        "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        "x-other": "y",
    }
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "headers"}]}
    async with rig.tcp_client() as client:
        answer = await client.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200
    seen = provider.last_headers
    assert (seen["openai-project"], seen["traceparent"]) == ("proj_1", headers["traceparent"])
    assert "x-other" not in seen
    assert TOKEN not in str(seen)


async def test_a_hard_budget_holds_for_every_api(tmp_path: Path) -> None:
    """What a picture may cost at most is set aside, and what is passed through is refused, before anything is sent."""
    budget = "[model_costs]\ngpt-4.1 = 100\n[budget]\ndaily_usd = 1\n"
    async with (
        Simulator() as own,
        running_service(tmp_path, own, extra=f"rate_limit = 60000\n{budget}") as rig,
    ):
        async with rig.tcp_client() as client:
            picture = {"model": "gpt-4.1", "prompt": "a cat"}
            assert (await client.post("/v1/images/generations", json=picture)).status_code == 200
            many = await client.post("/v1/images/generations", json=picture | {"n": 9})
            assert (many.status_code, many.json()["error"]["code"]) == (429, "budget_exceeded")
            long = {"model": "gpt-4.1", "input": "hello", "max_output_tokens": 20_000}
            assert (await client.post("/v1/responses", json=long)).status_code == 429
            message = {
                "model": "gpt-4.1",
                "max_tokens": 20_000,
                "messages": [{"role": "user", "content": "hi"}],
            }
            refused = await client.post("/v1/messages", json=message)
            assert (refused.status_code, refused.json()["type"]) == (429, "error")
        assert own.counts.arrivals == 1
