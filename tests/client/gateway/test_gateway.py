"""The gateway as its callers see it: a real process, real sockets, a simulated provider."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ai_client.testing import Simulator, SimulatorOptions
from tests.client.service_rig import TEST_KEY, Rig, running_service, until

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello world"}], "max_tokens": 4}


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A provider without limits or latency."""
    async with Simulator(SimulatorOptions()) as running:
        yield running


@pytest.fixture
async def rig(tmp_path: Path, simulator: Simulator) -> AsyncIterator[Rig]:
    """A running service."""
    async with running_service(tmp_path, simulator) as running:
        yield running


async def test_a_chat_request_is_answered_over_the_socket(rig: Rig, simulator: Simulator) -> None:
    """The upstream's body comes back as it is."""
    async with rig.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "hello world hello world"
    assert simulator.counts.arrivals == 1


async def test_a_stream_comes_as_events(rig: Rig) -> None:
    """Server-sent events, `[DONE]` last."""
    async with rig.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT | {"stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert events[-1] == "[DONE]"
    text = "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1])
    assert text == "hello world hello world"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"model": "gpt-4.1", "prompt": "hello", "max_tokens": 2}),
        ("/v1/embeddings", {"model": "text-embedding-3-small", "input": ["a", "b"]}),
    ],
)
async def test_the_other_endpoints_answer(rig: Rig, path: str, body: dict[str, object]) -> None:
    """Completions and embeddings."""
    async with rig.client() as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 200
    assert answer.json()["usage"]["total_tokens"] > 0


async def test_models_are_listed(rig: Rig) -> None:
    """Those of the upstream."""
    async with rig.client() as client:
        answer = await client.get("/v1/models")
    assert "deepseek-v3.2" in [model["id"] for model in answer.json()["data"]]


async def test_tcp_wants_a_token(rig: Rig) -> None:
    """Any local user can reach a port."""
    async with rig.tcp_client() as known, rig.tcp_client("wrong") as wrong, rig.tcp_client(None) as nobody:
        assert (await known.get("/v1/models")).status_code == 200
        assert (await wrong.get("/v1/models")).json()["error"]["code"] == "invalid_token"
        assert (await nobody.get("/health")).json()["error"]["code"] == "missing_token"


async def test_a_page_in_a_browser_can_not_use_the_port(rig: Rig) -> None:
    """DNS rebinding changes Host, a cross-site request has an Origin."""
    async with rig.tcp_client() as client:
        rebound = await client.get("/v1/models", headers={"host": "evil.example"})
        cross = await client.get("/v1/models", headers={"origin": "http://evil.example"})
    assert (rebound.status_code, cross.status_code) == (403, 403)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b'{"messages": "\xff"}', "invalid_json"),
        (b'{"temperature": NaN}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"model": "gpt-4.1"}', "bad_request"),
        (b'{"messages": []}', "bad_request"),
        (b'{"messages": [{}], "stream": "yes"}', "bad_request"),
    ],
)
async def test_a_body_that_can_not_be_read_never_goes_upstream(
    rig: Rig, simulator: Simulator, body: bytes, code: str
) -> None:
    """400 in OpenAI's shape."""
    async with rig.client() as client:
        answer = await client.post("/v1/chat/completions", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert simulator.counts.arrivals == 0


async def test_a_caller_that_leaves_cancels_the_upstream_call(rig: Rig, simulator: Simulator) -> None:
    """Nobody pays for an answer that nobody reads."""
    body = json.dumps(CHAT | {"x_simulator_fault": "hang"})
    async with rig.client() as client:
        request = client.build_request("POST", "/v1/chat/completions", content=body)
        task = asyncio.create_task(client.send(request))
        await until(lambda: simulator.counts.in_flight == 1, what="the request upstream")
        task.cancel()
    await until(lambda: simulator.counts.disconnected == 1, what="the upstream call to be cancelled")


async def test_health_is_fine_while_everything_works(rig: Rig) -> None:
    """The command asks the service, so it needs no key."""
    done = await rig.command("--health-check", "--json")
    report = done.json()
    assert list(report["checks"]) == ["config", "key", "tls", "upstream", "disk", "service"]
    assert (done.code, report["ok"]) == (0, True), report
    assert TEST_KEY not in done.out


async def test_health_names_a_dead_upstream(rig: Rig, simulator: Simulator) -> None:
    """Exit code 1, and which check."""
    simulator.accepted_keys.add("hs_test_another_key")
    done = await rig.command("--health-check", "--json")
    report = done.json()
    assert (done.code, report["ok"], report["checks"]["upstream"]["ok"]) == (1, False, False)
    assert "refuses the key" in report["checks"]["upstream"]["detail"]


async def test_health_without_a_service_looks_itself(rig: Rig) -> None:
    """The service's check fails, the others are made here."""
    await rig.stop()
    report = (await rig.command("--health-check", "--json")).json()
    assert [name for name, check in report["checks"].items() if not check["ok"]] == ["service"]


async def test_a_reload_takes_the_new_key(rig: Rig, simulator: Simulator) -> None:
    """The command returns when the new key is in use."""
    simulator.accepted_keys.add("hs_test_the_second_key")
    async with rig.client() as client:
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 401
        rig.key_file.write_text("hs_test_the_second_key")
        done = await rig.command("reload")
        assert done.code == 0, done.err
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200


async def test_a_broken_configuration_keeps_the_old_one(rig: Rig) -> None:
    """And says so, with exit code 1."""
    rig.config.write_text("[api]\ntimeout = never\n")
    done = await rig.command("reload", "--socket", str(rig.socket))
    assert done.code == 1
    assert f"{rig.config}:2: [api] timeout" in done.err
    async with rig.client() as client:
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200


async def test_new_limits_are_taken_by_the_running_client(rig: Rig, simulator: Simulator) -> None:
    """Nothing is dropped, and nothing but the limits changes."""
    rig.set_config(simulator.base_url, "rate_limit = 1")
    answer = (await rig.command("reload", "--json")).json()
    assert (answer["ok"], answer["changed"], answer["restart_needed"]) == (True, ["performance"], False)
    async with rig.client() as client:
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
        refused = await client.post(
            "/v1/chat/completions", json=CHAT | {"max_tokens": 5}, headers={"x-ai-deadline": "5"}
        )
    assert (refused.status_code, refused.json()["error"]["code"]) == (504, "deadline_exceeded")


async def test_the_rate_window_outlives_a_restart(rig: Rig, tmp_path: Path, simulator: Simulator) -> None:
    """A restart must not let the host send twice its limit."""
    async with rig.client() as client:
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
    await rig.stop()
    async with (
        running_service(tmp_path, simulator, extra="rate_limit = 1") as again,
        again.client() as client,
    ):
        body = CHAT | {"max_tokens": 5}
        refused = await client.post("/v1/chat/completions", json=body, headers={"x-ai-deadline": "5"})
    assert refused.json()["error"]["code"] == "deadline_exceeded"


async def test_another_listening_address_wants_a_restart(rig: Rig) -> None:
    """Exit code 3 and a word on it; the rest of the configuration is taken."""
    rig.config.write_text(rig.config.read_text().replace(f"port = {rig.port}", "port = 0"))
    done = await rig.command("reload")
    assert done.code == 3
    assert "need a restart" in done.err


async def test_a_request_goes_to_the_model_of_its_importance(rig: Rig, simulator: Simulator) -> None:
    """What `[routing]` does not name stays as it was asked."""
    rig.config.write_text(rig.config.read_text() + "[routing]\nordinary = deepseek-v3.2\n")
    assert (await rig.command("reload")).code == 0
    async with rig.client() as client:
        for importance in ("ordinary", "critical"):
            headers = {"x-ai-importance": importance}
            assert (await client.post("/v1/chat/completions", json=CHAT, headers=headers)).status_code == 200
    assert [arrival.model for arrival in simulator.arrivals][-2:] == ["deepseek-v3.2", "gpt-4.1"]


async def test_a_certificate_bundle_that_can_not_be_read_keeps_the_old_configuration(rig: Rig) -> None:
    """Found before the old client is let go."""
    rig.config.write_text(rig.config.read_text() + "[security]\ncert_path = /nonexistent.pem\n")
    done = await rig.command("reload")
    assert done.code == 1
    assert "cert_path /nonexistent.pem" in done.err
    async with rig.client() as client:
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200


async def test_sigterm_ends_the_service_and_removes_its_socket(rig: Rig) -> None:
    """A clean exit."""
    assert await rig.stop() == 0
    assert not rig.socket.exists()


async def test_only_operators_may_reload_over_tcp(rig: Rig) -> None:
    """A tenant's token is not enough."""
    async with rig.tcp_client() as client:
        answer = await client.post("/control/reload")
    assert answer.json()["error"]["code"] == "not_an_operator"
    assert os.geteuid() == 0 or answer.status_code == 403
