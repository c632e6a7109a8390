"""The status page: what it is made of, who may see it, and how it looks in a real browser."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import structs

from ai_client.contract.events import Failed, Settled
from ai_client.gateway.watch.page import PAGE
from ai_client.gateway.watch.recent_activity import ERRORS, SECONDS, TENANTS, RecentActivity
from ai_client.testing import Simulator, SimulatorOptions
from tests.browser import shown_at
from tests.client import event_samples
from tests.client.event_samples import tell
from tests.client.service_rig import TEST_KEY, TOKEN, Rig, program, running_service, until

pytestmark = pytest.mark.slow

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "a secret text"}], "max_tokens": 3}


def settled(at_s: float, latency_s: float) -> Settled:
    """A request that went well."""
    return event_samples.settled(at=at_s, latency_s=latency_s, upstream_s=0.0)


def failed(at_s: float, code: str) -> Failed:
    """One that did not, of a model with a long name."""
    return event_samples.failed(at=at_s, code=code, model="x" * 500, upstream_s=0.0, asked_model="")


def test_the_board_counts_by_second_and_forgets_what_is_old() -> None:
    """120 seconds, oldest first; the second that is not over is not shown."""
    now_s = 1000.0
    activity = RecentActivity(wall_clock=lambda: now_s)
    for at_s in (700.0, 998.0, 998.9, 999.5):
        tell(activity, settled(at_s, 0.2))
    tell(activity, failed(999.6, "upstream_timeout"))
    tell(activity, failed(999.7, "cancelled"))
    shown = activity.as_json()
    assert len(shown["per_second"]) == SECONDS
    assert shown["per_second"][-2:] == [[2, 0], [2, 1]]
    assert sum(requests for requests, _ in shown["per_second"]) == 4
    assert shown["latency_s"]["p50"] == 0.2
    [error] = shown["errors"]
    assert (error["code"], len(error["model"])) == ("upstream_timeout", 80)


def test_errors_are_grouped_and_the_latest_kind_comes_first() -> None:
    """One cause that comes a thousand times hides no other; names that callers make up are one kind."""
    activity = RecentActivity(wall_clock=lambda: 1000.0)
    tell(activity, failed(900.0, "upstream_timeout"))
    for number in range(1000):
        tell(
            activity,
            structs.replace(failed(901.0 + number / 1000, "model_not_found"), model=f"made-up-{number}"),
        )
    tell(activity, failed(950.0, "upstream_timeout"))
    assert [(each["code"], each["count"], each["at"]) for each in activity.as_json()["errors"]] == [
        ("upstream_timeout", 2, 950.0),
        ("model_not_found", 1000, 901.999),
    ]
    for number in range(100):
        tell(activity, failed(960.0, f"code-{number}"))
    assert len(activity.as_json()["errors"]) == ERRORS


def test_tenants_are_counted_up_to_a_number_of_them() -> None:
    """Every uid of a host is one; what is beyond is counted together, and nothing is lost."""
    activity = RecentActivity(wall_clock=lambda: 1000.0)
    for number in range(3 * TENANTS):
        tell(activity, structs.replace(settled(900.0, 0.1), tenant=f"uid-{number}"))
    tell(activity, structs.replace(failed(900.0, "overload"), tenant="uid-0"))
    tenants = activity.as_json()["tenants"]
    assert len(tenants) == TENANTS + 1
    assert tenants["uid-0"] == {"requests": 2, "errors": 1}
    assert sum(each["requests"] for each in tenants.values()) == 3 * TENANTS + 1


def test_the_services_own_look_at_the_models_counts_nowhere_and_its_failure_is_shown() -> None:
    """Requests a second, tenants and times are the callers'."""
    activity = RecentActivity(wall_clock=lambda: 1000.0)
    tell(activity, structs.replace(settled(999.0, 5.0), endpoint="models"))
    tell(activity, structs.replace(failed(999.0, "upstream_timeout"), endpoint="models"))
    shown = activity.as_json()
    assert sum(requests for requests, _ in shown["per_second"]) == 0
    assert (shown["tenants"], shown["latency_s"]["p50"]) == ({}, None)
    assert [each["code"] for each in shown["errors"]] == ["upstream_timeout"]


async def status_of(rig: Rig) -> dict[str, Any]:
    """What the page is drawn from."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{rig.metrics_port}/status.json")
    return dict(answer.json())


async def test_gateway_and_metrics_listener_answer_with_one_document(rig: Rig) -> None:
    """The page asks the one that it came from: what only the other knew would not be shown."""
    async with rig.client() as client:
        of_gateway = (await client.get("/status.json")).json()
    assert set(of_gateway) == set(await status_of(rig))


async def test_waiting_and_being_answered_are_apart(tmp_path: Path) -> None:
    """Of seven requests, of which two may go at once, two are at the provider and five wait."""
    options = SimulatorOptions(latency_ms=3_600_000)
    extra = "max_concurrent_requests = 2"
    async with (
        Simulator(options) as simulator,
        running_service(tmp_path, simulator, extra=extra) as rig,
        rig.client() as client,
    ):
        asked = [
            asyncio.create_task(client.post("/v1/chat/completions", json=CHAT | {"seed": n}, timeout=60))
            for n in range(7)
        ]
        await until(lambda: simulator.counts.in_flight == 2, what="two requests at the provider")
        deadline_s = asyncio.get_running_loop().time() + 15
        status = await status_of(rig)
        while status["queued"] + status["answering"] < 7:
            assert asyncio.get_running_loop().time() < deadline_s
            status = await status_of(rig)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    assert (status["answering"], status["queued"]) == (2, 5)
    limits = status["limits"]
    assert (limits["concurrency_used"], limits["concurrency"], limits["rpm_used"]) == (2, 2, 2)


async def test_every_figure_is_the_services_own(rig: Rig) -> None:
    """Twelve answers and one unknown model: requests, tenants, models, costs and errors add up to that."""
    status = await status_of(rig)
    assert {name: each["breaker"] for name, each in status["models"].items()} == {"gpt-4.1": "closed"}
    assert status["tenants"] == {"uid-0": {"requests": 13, "errors": 1}}
    spent = status["spent"]
    assert spent["today_by_tenant"] == {"uid-0": pytest.approx(spent["today_usd"])}
    assert spent["today_by_model"] == {"gpt-4.1": pytest.approx(spent["today_usd"])}
    assert 0 < spent["today_usd"] <= spent["month_usd"]
    [error] = status["errors"]
    assert (error["count"], error["tenant"]) == (1, "uid-0")
    assert status["host"] == socket.gethostname()
    usage = (await rig.command("usage", "--json", "--days", "1")).json()
    assert usage["total"]["cost_usd"] == pytest.approx(spent["today_usd"])
    assert (status["queued"], status["answering"]) == (0, 0)
    assert sum(requests for requests, _ in status["per_second"]) <= 13
    assert 0 < status["latency_s"]["p50"] <= status["latency_s"]["p95"] <= status["latency_s"]["p99"]
    assert 0 <= status["cache_hit_rate"] < 1
    limits, shown = status["limits"], await metrics_of(rig)
    for kind, short in (("requests", "rpm"), ("tokens", "tpm")):
        assert shown.get(f'ai_client_limit{{kind="{kind}"}}') == limits[short]
        assert (
            shown.get(f'ai_client_limit_used{{kind="{kind}"}}', limits[f"{short}_used"])
            == limits[f"{short}_used"]
        )
    assert limits["rpm_used"] >= 12
    assert shown["ai_client_queue_length"] == status["queued"]
    assert shown["ai_client_pool_connections_limit"] == status["pool"]["size"]


async def metrics_of(rig: Rig) -> dict[str, float]:
    """The samples that Prometheus would read."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{rig.metrics_port}/metrics")).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_the_page_loads_nothing_from_elsewhere() -> None:
    """No outside asset, no build step."""
    text = PAGE.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert re.findall(r"https?://\S+", text) == ['http://www.w3.org/2000/svg",']
    assert "innerHTML" not in text


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A service with a budget, after some traffic, some of it in vain."""
    extra = "rate_limit = 600\n[budget]\ndaily_usd = 0.01\nmonthly_usd = 5\n[model_costs]\n* = 8"
    async with Simulator() as simulator, running_service(tmp_path, simulator, extra=extra) as running:
        async with running.client() as client:
            for number in range(12):
                await client.post("/v1/chat/completions", json=CHAT | {"seed": number})
            await client.post("/v1/chat/completions", json=CHAT | {"model": "<b>none</b>"})
        yield running


async def test_the_status_has_numbers_and_no_text_of_callers(rig: Rig) -> None:
    """Limits, cost, errors; neither key nor message."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{rig.metrics_port}/status.json")
    status = answer.json()
    assert status["limits"]["rpm"] == 600
    assert status["limits"]["rpm_used"] >= 12
    assert status["spent"]["today_usd"] == pytest.approx(12 * 7 * 8e-6)
    assert {(each["scope"], each["period"]) for each in status["spent"]["budgets"]} == {
        ("all", "day"),
        ("all", "month"),
    }
    assert status["errors"][0]["code"] == "model_not_found"
    assert "a secret text" not in answer.text
    assert TEST_KEY not in answer.text


async def test_the_gateways_own_port_gives_the_page_freely_and_the_data_for_a_token(rig: Rig) -> None:
    """The page itself holds nothing."""
    async with rig.tcp_client(None) as nobody, rig.tcp_client() as known:
        page = await nobody.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert (await nobody.get("/status.json")).status_code == 401
        assert (await known.get("/status.json")).json()["version"]
        assert (await nobody.get("/", headers={"host": "evil.example"})).status_code == 403


async def test_a_foreign_page_can_not_read_it(rig: Rig) -> None:
    """DNS rebinding gives this address another name."""
    async with httpx.AsyncClient() as client:
        for path in ("/status.json", "/metrics"):
            url = f"http://127.0.0.1:{rig.metrics_port}{path}"
            assert (await client.get(url, headers={"host": "evil.example"})).status_code == 403


def shown_requests(url: str) -> int:
    """How many the chart shows."""
    seconds = httpx.get(f"{url}status.json", timeout=5).json()["per_second"]
    return sum(requests for requests, _ in seconds)


async def test_the_page_works_in_a_real_browser(rig: Rig, tmp_path: Path) -> None:
    """Chromium shows the numbers; a model's name that is markup is shown as text; a screenshot is taken."""
    browser = program("chromium", "chromium-browser", "google-chrome", package="chromium")
    url = f"http://127.0.0.1:{rig.metrics_port}/"
    await until(lambda: shown_requests(url) > 0, what="a second with requests to be over")
    shot = tmp_path / "status.png"
    options = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/browser")
    process = await asyncio.create_subprocess_exec(
        *(browser, *options, "--virtual-time-budget=4000", "--window-size=1120,1000"),
        *(f"--screenshot={shot}", "--dump-dom", url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await process.communicate()
    dom = out.decode()
    assert ">live<" in dom
    assert "$0.0007" in dom
    assert "model_not_found" in dom
    assert f"<title>{socket.gethostname()} · ai-client</title>" in dom
    assert "at most 50 in parallel" in dom
    assert "&lt;b&gt;none&lt;/b&gt;" in dom
    assert "<rect" in dom
    assert TOKEN not in dom
    assert shot.stat().st_size > 10_000


# Puts a document where the service's would come.
_STAGE = "<script>window.fetch = async () => ({ok: true, status: 200, json: async () => (STATUS)});</script>"


async def test_every_figure_is_shown_and_fits_from_400_px_to_wide_dark_and_light(
    rig: Rig, tmp_path: Path
) -> None:
    """What the page shows is what the document says, long names included; nothing sticks out."""
    status = await status_of(rig)
    long = "a-tenant-with-a-name-" * 6
    status["tenants"] = {long: {"requests": 1234567, "errors": 7}}
    status["spent"] |= {"today_by_tenant": {long: 12.5}, "today_usd": 12.5, "month_usd": 321.25}
    status["errors"] = [
        {"count": 1234, "code": "c" * 60, "model": "m" * 80, "tenant": long, "at": 0, "request_id": "r" * 32}
    ]
    status |= {"queued": 4321, "answering": 17, "connections": 1999, "cache_hit_rate": 0.256}
    status["limits"] |= {"rpm": 6000, "rpm_used": 5999, "tpm": None, "tpm_used": 7777}
    status["models"] = {"m" * 80: {"breaker": "open", "concurrency_limit": 3}}
    stage = _STAGE.replace("STATUS", json.dumps(status))
    page = PAGE.read_text().replace("<script>", stage + "<script>", 1)
    colours = set()
    for width, scheme in ((400, 1), (400, 0), (2400, 1)):
        shown = await asyncio.to_thread(shown_at, page, tmp_path, width=width, scheme=scheme)
        assert shown.needed_px <= width, (width, scheme)
        assert shown.cut == 0, (width, scheme)
        colours.add(shown.colours)
        for text in (
            *("4,321", "17 being answered", "$12.50", "$321.25 this month", "26 %", "1,999 connections"),
            *("5,999 of 6,000", "7,777", "breaker open", "1,234,567", "1,234 ×", "c" * 60),
        ):
            assert text in shown.text, text
    assert len(colours) == 2


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ({}, "Quota shared by 20 hosts: leased"),
        (
            {"mode": "floor", "trouble": "coordination engine: did not answer in time"},
            "did not answer in time",
        ),
        ({"recovering": True}, "the engine lost its memory or is new"),
    ],
    ids=["well", "the engine is away", "the engine is new"],
)
async def test_a_shared_quota_is_shown_with_its_source_and_what_ails_it(
    rig: Rig, tmp_path: Path, told: dict[str, Any], shown: str
) -> None:
    """As docs/how-to/coordination.md says of the page; a host that shares nothing shows nothing of it."""
    status = await status_of(rig)
    assert status["coordination"] is None
    quota = {
        "mode": "leased",
        "trouble": None,
        "rpm": 365,
        "fleet_rpm": 4800,
        "hosts": 20,
        "recovering": False,
    }
    seen = {}
    for name, coordination in (("shared", quota | told), ("alone", None)):
        stage = _STAGE.replace("STATUS", json.dumps(status | {"coordination": coordination}))
        page = PAGE.read_text().replace("<script>", stage + "<script>", 1)
        seen[name] = await asyncio.to_thread(shown_at, page, tmp_path, width=400, scheme=1)
    assert seen["shared"].needed_px <= 400
    assert shown in seen["shared"].text
    assert "365 of 4,800" in seen["shared"].text
    assert "Quota shared" not in seen["alone"].text
