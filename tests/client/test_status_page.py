"""The status page: what it is made of, who may see it, and how it looks in a real browser."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from ai_client.events import Failed, Settled
from ai_client.gateway.board import SECONDS, Board
from ai_client.gateway.page import PAGE
from ai_client.testing import Simulator
from tests.client.service_rig import TEST_KEY, TOKEN, Rig, program, running_service, until

pytestmark = pytest.mark.slow

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "a secret text"}], "max_tokens": 3}
COMMON = {"request_id": "r", "tenant": "web", "endpoint": "chat/completions", "stream": False, "attempts": 1}
REST = {"waited_s": 0.0, "upstream_s": 0.0, "key_fingerprint": "", "importance": None, "cost_tags": {}}


def settled(at_s: float, latency_s: float) -> Settled:
    """A request that went well."""
    return Settled(
        at=at_s,
        model="gpt-4.1",
        status=200,
        cached=False,
        usage=None,
        cost_usd=None,
        latency_s=latency_s,
        first_byte_s=None,
        asked_model="gpt-4.1",
        **COMMON,
        **REST,
    )


def failed(at_s: float, code: str) -> Failed:
    """One that did not."""
    return Failed(
        at=at_s,
        model="x" * 500,
        error="E",
        code=code,
        status=None,
        latency_s=0.1,
        billed_unknown=False,
        asked_model="",
        **COMMON,
        **REST,
    )


def test_the_board_counts_by_second_and_forgets_what_is_old() -> None:
    """120 seconds, oldest first; the second that is not over is not shown."""
    now_s = 1000.0
    board = Board(wall_clock=lambda: now_s)
    for at_s in (700.0, 998.0, 998.9, 999.5):
        board(settled(at_s, 0.2))
    board(failed(999.6, "upstream_timeout"))
    board(failed(999.7, "cancelled"))
    shown = board.as_json()
    assert len(shown["per_second"]) == SECONDS
    assert shown["per_second"][-2:] == [[2, 0], [2, 1]]
    assert sum(requests for requests, _ in shown["per_second"]) == 4
    assert shown["latency_s"]["p50"] == 0.2
    [error] = shown["errors"]
    assert (error["code"], len(error["model"])) == ("upstream_timeout", 80)


def test_the_page_loads_nothing_from_elsewhere() -> None:
    """No outside asset, no build step."""
    text = PAGE.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert re.findall(r"https?://\S+", text) == ['http://www.w3.org/2000/svg",']
    assert "innerHTML" not in text


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A service with a budget, after some traffic, some of it in vain."""
    extra = "rate_limit = 600\n[budget]\ndaily_usd = 0.01\nmonthly_usd = 5"
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
    assert "&lt;b&gt;none&lt;/b&gt;" in dom
    assert "<rect" in dom
    assert TOKEN not in dom
    assert shot.stat().st_size > 10_000
