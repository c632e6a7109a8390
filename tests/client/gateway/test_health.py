"""The health check of a gateway that has no room: it does not wait for any, and a busy service is a healthy one."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from ai_client.contract.events import Failed, Settled
from ai_client.contract.request import Request, Response
from ai_client.errors import ConnectError, DeadlineExceeded, OverloadError
from ai_client.gateway.watch.checkup import Checkup
from ai_client.gateway.watch.evidence import Evidence
from ai_client.settings import LoadedKey, Settings, load, read_key
from ai_client.testing import Simulator, SimulatorOptions
from tests.client.event_samples import failed, settled
from tests.client.service_rig import DEADLINE_S, TEST_KEY, ai_client, running_service

PROMPT_S = 8.0


async def ask(client: httpx.AsyncClient, text: str) -> int:
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": text}], "max_tokens": 1}
    return (await client.post("/v1/chat/completions", json=body)).status_code


async def test_a_full_window_does_not_hold_up_the_health_check(tmp_path: Path) -> None:
    """All of the minute's requests are spent and others wait: the answer comes at once, also after a restart."""
    async with Simulator(SimulatorOptions()) as simulator:
        async with (
            running_service(tmp_path, simulator, extra="rate_limit = 3") as rig,
            rig.client() as client,
        ):
            assert [await ask(client, f"{number}") for number in range(3)] == [200] * 3
            waiting = [asyncio.create_task(ask(client, f"w{number}")) for number in range(3)]
            async with asyncio.timeout(DEADLINE_S):
                while (await client.get("/status.json")).json()["queued"] < 3:  # noqa: ASYNC110 - its state
                    await asyncio.sleep(0.01)
            began_s = time.monotonic()
            report = (await client.get("/health")).json()
            assert time.monotonic() - began_s < PROMPT_S
            assert report["ok"], report
            assert "answered a request" in report["checks"]["upstream"]["detail"]
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        # The window survives; what the last process saw of the upstream does not.
        async with running_service(tmp_path, simulator, extra="rate_limit = 3") as rig:
            began_s = time.monotonic()
            report = (await rig.command("--health-check", "--json")).json()
            assert time.monotonic() - began_s < PROMPT_S + 3
            assert report["ok"], report
            assert "not asked" in report["checks"]["upstream"]["detail"]
        assert simulator.counts.arrivals == 3


def settings_in(folder: Path) -> tuple[Settings, LoadedKey]:
    (folder / "ai-client.conf").write_text(
        f"[api]\nbase_url = http://127.0.0.1:9/v1\n[caching]\ncache_dir = {folder}\n[logging]\nlog_dir = {folder}\n"
    )
    key = read_key(key_file=None, environment={"HOLYSHEEP_API_KEY": TEST_KEY})
    return load(folder / "ai-client.conf"), key


@pytest.mark.parametrize(
    ("seen", "is_ok", "detail"),
    [
        ([], True, "not asked, because this host's own limits are used up for now"),
        ([settled(), failed(error="BudgetExceeded")], True, "it answered 20 s ago"),
        ([settled(), failed(error="ConnectError")], False, "the last request ended with ConnectError"),
        ([failed(error="ConnectError"), settled()], True, "it answered 20 s ago"),
    ],
)
@pytest.mark.parametrize(
    "refusal",
    [
        OverloadError("tenant t", queued=1, limit=1),
        DeadlineExceeded("request", deadline_s=4, phase="queue", earliest_s=50),
    ],
)
async def test_what_traffic_has_shown_stands_in_for_a_question_that_finds_no_room(
    tmp_path: Path, *, refusal: Exception, seen: list[Settled | Failed], is_ok: bool, detail: str
) -> None:
    """Only a fault of the upstream's makes the check fail."""
    now_s = 1000.0
    evidence = Evidence(clock=lambda: now_s)
    for event in seen:
        (evidence.failed if isinstance(event, Failed) else evidence.settled)(event)
    now_s += 20.0

    async def send(request: Request) -> Response:
        assert (request.endpoint, request.priority) == ("models", 0)
        raise refusal

    upstream = (await Checkup(evidence, clock=time.monotonic).report(*settings_in(tmp_path), send))["checks"][
        "upstream"
    ]
    assert upstream["ok"] is is_ok
    assert detail in upstream["detail"]


async def test_an_upstream_that_does_not_answer_fails_the_check(tmp_path: Path) -> None:
    """Refused or silent: no room has nothing to do with it."""
    for error, detail in (
        (ConnectError("127.0.0.1", "connection refused"), "connection refused"),
        (DeadlineExceeded("request", deadline_s=4, phase="upstream"), "does not answer"),
    ):

        async def send(request: Request, error: Exception = error) -> Response:
            del request
            raise error

        checkup = Checkup(Evidence(clock=time.monotonic), clock=time.monotonic)
        upstream = (await checkup.report(*settings_in(tmp_path), send))["checks"]["upstream"]
        assert upstream["ok"] is False
        assert detail in upstream["detail"]


def test_after_a_reload_only_requests_that_began_since_count() -> None:
    """One that ends now may have gone out with the old key."""
    now_s = 1000.0
    evidence = Evidence(clock=lambda: now_s)
    evidence.settled(settled())
    assert evidence.answered_s_ago() == 0.0
    evidence.forget()
    now_s += 1.0
    evidence.settled(settled(latency_s=5.0))
    assert evidence.answered_s_ago() is None
    evidence.settled(settled(latency_s=0.5))
    assert evidence.answered_s_ago() == 0.0


async def test_fifty_who_ask_at_once_cost_the_upstream_one_request(tmp_path: Path) -> None:
    """And one of them that leaves does not end the look for the others."""
    settings, key = settings_in(tmp_path)
    asked, go = 0, asyncio.Event()

    async def send(request: Request) -> Response:
        nonlocal asked
        del request
        asked += 1
        await go.wait()
        return Response(status=200, headers={}, body=b"{}", model="")

    checkup = Checkup(Evidence(clock=time.monotonic), clock=time.monotonic)
    askers = [asyncio.create_task(checkup.report(settings, key, send)) for _ in range(50)]
    async with asyncio.timeout(DEADLINE_S):
        while not asked:  # noqa: ASYNC110 - its own count
            await asyncio.sleep(0.01)
        askers[0].cancel()
        go.set()
        reports = await asyncio.gather(*askers[1:])
    assert asked == 1
    assert all(report is reports[0] for report in reports)


@pytest.mark.parametrize(
    ("like", "dialect"), [("anthropic", "anthropic"), ("azure", "azure"), ("openai", "openai")]
)
async def test_an_upstream_is_asked_for_its_models_as_its_dialect_signs(
    tmp_path: Path, like: str, dialect: str
) -> None:
    """Anthropic and Azure refuse a bearer token there: a good key would look like a wrong one."""
    config = tmp_path / "conf"
    options = SimulatorOptions(like=like, keys=frozenset({TEST_KEY}), key_prefix="")
    async with Simulator(options) as provider:
        config.write_text(f"[api]\nbase_url = {provider.base_url}\ndialect = {dialect}\n")
        look = ("--health-check", "--json", "--socket", "/dev/null", "--config", str(config))
        for key, is_taken in ((TEST_KEY, True), ("hs_test_another_key_0000", False)):
            found = (await ai_client(*look, environment={"AI_CLIENT_API_KEY": key})).json()
            assert found["checks"]["upstream"]["ok"] is is_taken, found
        assert "refuses the key with 401" in found["checks"]["upstream"]["detail"]
        async with (
            running_service(tmp_path, provider, api=f"dialect = {dialect}") as rig,
            rig.client() as client,
        ):
            assert (await client.get("/health")).json()["checks"]["upstream"]["ok"]
            assert (await client.get("/v1/models")).status_code == 200
