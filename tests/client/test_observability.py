"""The dashboard and the alert rules: they speak of metrics that exist, and the rules fire when they should."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics_core import Metric

from ai_client.gateway.gauges import Moment, MomentCollector, registry_of
from ai_client.metrics import Recorder
from tests.client.service_rig import program

FOLDER = Path(__file__).parents[2] / "client" / "observability"
NAME = re.compile(r"\b(?:ai_client|gen_ai_client|process)_[a-z_]+\b")
SUFFIX = re.compile(r"_(?:bucket|sum|count|total)$")


def families() -> Iterator[Metric]:
    """All metrics of a service."""
    recorder = Recorder(provider="example.org", models=[], tenants=[])
    stats = {"queued": 0, "pool": {"in_use": 0, "size": 1}}
    moment = Moment(connections=0, requests_in_flight=0, client=stats, certificate_expires_at_s=0.0)
    yield from registry_of(recorder, MomentCollector(moment)).collect()


def unknown(text: str) -> set[str]:
    """Names in a text that no metric of the service has."""
    known = {family.name for family in families()}
    return {name for name in NAME.findall(text) if SUFFIX.sub("", name) not in known and name not in known}


def test_the_dashboard_shows_metrics_that_exist() -> None:
    """A renamed metric must not leave an empty panel."""
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    exprs = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(exprs) > 20
    assert unknown(" ".join(exprs)) == set()


def test_the_dashboard_has_one_id_and_place_a_panel() -> None:
    """Grafana drops what overlaps or repeats."""
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    places = [panel["gridPos"] for panel in panels]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_the_alerts_watch_metrics_that_exist() -> None:
    """An alert on a renamed metric never fires."""
    assert unknown((FOLDER / "alerts.yml").read_text()) == set()


async def test_promtool_tries_every_alert() -> None:
    """`promtool test rules`, and no alert is without a case."""
    process = await asyncio.create_subprocess_exec(
        program("promtool", package="prometheus"),
        *("test", "rules", "alerts.test.yml"),
        cwd=FOLDER,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    alerts = set(re.findall(r"- alert: (\w+)", (FOLDER / "alerts.yml").read_text()))
    tried = set(re.findall(r"alertname: (\w+)", (FOLDER / "alerts.test.yml").read_text()))
    assert alerts == tried
