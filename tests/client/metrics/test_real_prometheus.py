"""The dashboard's queries and the alerts, run by a real Prometheus that scrapes a real service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from ai_client.testing import Simulator
from tests.client.service_rig import free_port, program, running_service

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[3] / "client" / "observability"
CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
CONFIG = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: ai-client
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
# Some traffic fills these; what never happened has no series.
FILLED = {
    "Requests per second",
    "Cost in the last 24 h",
    "Memory",
    "Queued and in flight",
    "Releases",
    "Faults of the gateway",
    "Limits used",
}


@pytest.fixture
async def prometheus(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """It has scraped the service before and after some requests."""
    async with Simulator() as simulator, running_service(tmp_path, simulator) as rig:
        port, config = free_port(), tmp_path / "prometheus.yml"
        config.write_text(CONFIG.format(rules=FOLDER / "alerts.yml", port=rig.metrics_port))
        process = await asyncio.create_subprocess_exec(
            program("prometheus", package="prometheus"),
            *(f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/tsdb"),
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                await _scraped(client, "up")
                async with rig.client() as caller:
                    for number in range(5):
                        await caller.post("/v1/chat/completions", json=CHAT | {"seed": number})
                await _scraped(client, "sum(rate(ai_client_requests_total[1m]))")
                yield client
        finally:
            process.terminate()
            await process.wait()


async def _scraped(client: httpx.AsyncClient, query: str) -> None:
    """Until the query has an answer."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + 90
    while True:
        assert loop.time() < end_s, f"Prometheus has no answer to {query}"
        try:
            answer = await client.get("/api/v1/query", params={"query": query})
        except httpx.TransportError:
            continue
        if answer.status_code == 200 and answer.json()["data"]["result"]:
            return


async def test_every_query_of_the_dashboard_runs_and_the_rules_load(prometheus: httpx.AsyncClient) -> None:
    """With the variables as Grafana fills them in; no alert fires while all is well."""
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    refused, empty = [], []
    for panel in panels:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m")
            answer = (await prometheus.get("/api/v1/query", params={"query": query})).json()
            if answer["status"] != "success":
                refused.append((panel["title"], answer["error"]))
            elif panel["title"] in FILLED and not answer["data"]["result"]:
                empty.append(panel["title"])
    assert (refused, empty) == ([], [])
    rules = (await prometheus.get("/api/v1/rules")).json()["data"]["groups"]
    assert sum(len(group["rules"]) for group in rules) > 5
    assert [rule["name"] for group in rules for rule in group["rules"] if rule["health"] == "err"] == []
    alerts = (await prometheus.get("/api/v1/alerts")).json()["data"]["alerts"]
    assert [alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"] == []
