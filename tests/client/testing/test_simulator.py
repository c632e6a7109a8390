"""The provider simulator: what it answers, how it limits, how it fails on demand, and that it counts right."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from ai_client.testing import Simulator, SimulatorOptions, faults
from ai_client.testing.limits import Window, duration
from tests.client.service_rig import TEST_KEY, until

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello world"}], "max_tokens": 4}


def caller(simulator: Simulator, key: str = TEST_KEY) -> httpx.AsyncClient:
    """A client of it."""
    headers = {"authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=simulator.base_url, headers=headers, timeout=10)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """Without limits or latency."""
    async with Simulator() as running:
        yield running


async def test_the_same_request_has_the_same_answer(simulator: Simulator) -> None:
    """Tests know it beforehand; only the id differs."""
    async with caller(simulator) as client:
        one, two = [(await client.post("/chat/completions", json=CHAT)).json() for _ in range(2)]
    assert one["choices"] == two["choices"]
    assert one["id"] != two["id"]
    assert one["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


@pytest.mark.parametrize("key", ["none", "sk-other", "hs_test_revoked_key1"])
async def test_a_wrong_key_is_refused(key: str) -> None:
    """401, as the provider does."""
    async with (
        Simulator(SimulatorOptions(keys=frozenset({TEST_KEY}))) as simulator,
        caller(simulator, key) as client,
    ):
        answer = await client.post("/chat/completions", json=CHAT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_requests_over_the_limit_get_429_and_true_headers() -> None:
    """The window slides: after 60 s there is room again, and Retry-After says so."""
    now_s = 100.0
    async with (
        Simulator(SimulatorOptions(limit_rpm=2), clock=lambda: now_s) as simulator,
        caller(simulator) as client,
    ):
        first = await client.post("/chat/completions", json=CHAT)
        now_s = 110.0
        second = await client.post("/chat/completions", json=CHAT)
        refused = await client.post("/chat/completions", json=CHAT)
        now_s = 160.0
        later = await client.post("/chat/completions", json=CHAT)
    assert [answer.status_code for answer in (first, second, refused, later)] == [200, 200, 429, 200]
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in (first, second)] == ["1", "0"]
    assert second.headers["x-ratelimit-reset-requests"] == "1m0s"
    assert refused.headers["retry-after"] == "51"


async def test_tokens_over_the_limit_get_429() -> None:
    """Prompt and answer count."""
    async with Simulator(SimulatorOptions(limit_tpm=10)) as simulator, caller(simulator) as client:
        statuses = [(await client.post("/chat/completions", json=CHAT)).status_code for _ in range(2)]
    assert statuses == [200, 429]


async def test_each_key_has_limits_of_its_own() -> None:
    """As accounts do."""
    async with Simulator(SimulatorOptions(limit_rpm=1)) as simulator:
        for key in ("hs_test_key_number_1", "hs_test_key_number_2"):
            async with caller(simulator, key) as client:
                assert (await client.post("/chat/completions", json=CHAT)).status_code == 200


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_status_on_demand(simulator: Simulator, status: int) -> None:
    """By header, with Retry-After where asked for."""
    headers = {"x-simulator-fault": f"{status}; retry-after=7; retry-after-ms=1500"}
    async with caller(simulator) as client:
        answer = await client.post("/chat/completions", json=CHAT, headers=headers)
        fine = await client.post("/chat/completions", json=CHAT)
    assert (answer.status_code, answer.headers["retry-after"], answer.headers["retry-after-ms"]) == (
        status,
        "7",
        "1500",
    )
    assert fine.status_code == 200


async def test_a_fault_planned_by_the_control_route_counts_down(simulator: Simulator) -> None:
    """For the next requests of one model alone."""
    control = simulator.base_url.removesuffix("/v1") + "/control/faults"
    other = CHAT | {"model": "deepseek-v3.2"}
    async with caller(simulator) as client:
        planned = await client.post(control, json={"fault": "503", "count": 2, "model": "gpt-4.1"})
        statuses = [
            (await client.post("/chat/completions", json=body)).status_code
            for body in (CHAT, other, CHAT, CHAT)
        ]
    assert planned.status_code == 204
    assert statuses == [503, 200, 503, 200]


async def test_a_fault_that_can_not_be_read_is_refused(simulator: Simulator) -> None:
    """A typing error must not pass for a fault that did not show."""
    control = simulator.base_url.removesuffix("/v1") + "/control/faults"
    async with caller(simulator) as client:
        assert (await client.post(control, json={"fault": "hangs"})).status_code == 400
        answer = await client.post("/chat/completions", json=CHAT | {"x_simulator_fault": "slow; dealy=1"})
    assert answer.status_code == 400
    assert "dealy" in answer.json()["error"]["message"]


@pytest.mark.parametrize("fault", ["reset", "cut", "not-http"])
async def test_a_broken_connection_on_demand(simulator: Simulator, fault: str) -> None:
    """The caller sees a transport error."""
    async with caller(simulator) as client:
        with pytest.raises(httpx.TransportError):
            await client.post("/chat/completions", json=CHAT | {"x_simulator_fault": fault})


async def test_broken_json_on_demand(simulator: Simulator) -> None:
    """200 with a body that is none."""
    async with caller(simulator) as client:
        answer = await client.post("/chat/completions", json=CHAT | {"x_simulator_fault": "broken-json"})
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()


async def test_a_slow_body_is_whole_in_the_end(simulator: Simulator) -> None:
    """Byte by byte."""
    async with caller(simulator) as client:
        answer = await client.post("/chat/completions", json=CHAT | {"x_simulator_fault": "slow; delay=0"})
    assert answer.json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("fault", ["hang", "stall"])
async def test_a_hanging_request_ends_when_its_caller_leaves(simulator: Simulator, fault: str) -> None:
    """Nothing leaks: the count of requests in flight goes back to nought."""
    async with caller(simulator) as client:
        task = asyncio.create_task(
            client.post("/chat/completions", json=CHAT | {"x_simulator_fault": fault, "stream": True})
        )
        await until(lambda: simulator.counts.in_flight == 1, what="the request to arrive")
        task.cancel()
    await until(lambda: simulator.counts.in_flight == 0, what="the request to end")
    assert simulator.counts.disconnected == 1


async def test_the_counter_counts_every_arrival(simulator: Simulator) -> None:
    """Also those that are refused or fail; the peak is that of any 60 seconds."""
    async with caller(simulator) as client:
        bodies = [CHAT, CHAT | {"model": "none"}, CHAT | {"x_simulator_fault": "500"}]
        await asyncio.gather(*(client.post("/chat/completions", json=body) for body in bodies))
        stats = (await client.get(simulator.base_url.removesuffix("/v1") + "/control/stats")).json()
    assert stats["arrivals"] == stats["answered"] == stats["peak_rpm"] == 3
    assert stats["by_status"] == {"200": 1, "404": 1, "500": 1}


def test_a_window_forgets_what_is_60_seconds_old() -> None:
    """And says how long to wait for room."""
    window = Window(limit=3)
    for now_s in (0.0, 10.0, 20.0):
        window.take(1, now_s)
    assert window.wait_s(1, 30.0) == 30.0
    assert window.wait_s(2, 30.0) == 40.0
    assert window.wait_s(1, 60.0) == 0.0


@pytest.mark.parametrize(("seconds", "text"), [(0.02, "20ms"), (1.5, "1.5s"), (360, "6m0s"), (0, "0ms")])
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    """Which clients parse."""
    assert duration(seconds) == text


@pytest.mark.parametrize("text", ["", "200", "600", "sleep", "429; retry_after=1", "slow; delay=x"])
def test_unknown_faults_are_refused(text: str) -> None:
    """With what is known."""
    with pytest.raises(faults.FaultTextError):
        faults.parse(text)


async def test_a_revoked_key_is_refused_and_counted(simulator: Simulator) -> None:
    """Keys are told apart by the start of their SHA-256, so that a control route never sees one."""
    revoked, valid = "hs_test_revoked", "hs_test_valid"
    fingerprints = [hashlib.sha256(key.encode()).hexdigest()[:12] for key in (revoked, valid)]
    async with caller(simulator, revoked) as old, caller(simulator, valid) as new:
        root = simulator.base_url.removesuffix("/v1")
        answer = await new.post(f"{root}/control/keys", json={"refused": fingerprints[:1]})
        assert answer.status_code == 204
        assert (await old.post("/chat/completions", json=CHAT)).status_code == 401
        assert (await new.post("/chat/completions", json=CHAT)).status_code == 200
        stats = (await new.get(f"{root}/control/stats")).json()
    assert stats["by_key"] == dict.fromkeys(fingerprints, 1)


async def test_an_answer_is_played_on_demand() -> None:
    """What the provider gave which the simulator is like, and no other."""
    async with Simulator(SimulatorOptions(like="groq")) as simulator, caller(simulator) as client:
        body = CHAT | {"model": "llama-3.3-70b-versatile"}
        name = "odd-statuses-498-flex-has-no-room"
        played = await client.post(
            "/chat/completions", json=body | {"x_simulator_fault": f"play; name={name}"}
        )
        unknown = await client.post(
            "/chat/completions", json=body | {"x_simulator_fault": "play; name=nothing"}
        )
        control = simulator.base_url.removesuffix("/openai/v1") + "/control/faults"
        refused = await client.post(control, json={"fault": "play; name=nothing"})
        fine = await client.post("/chat/completions", json=body)
    assert (played.status_code, unknown.status_code, refused.status_code, fine.status_code) == (
        498,
        400,
        400,
        200,
    )
    assert name in unknown.json()["error"]["message"]
