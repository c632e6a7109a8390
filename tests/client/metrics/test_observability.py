"""The dashboard and the alert rules: they speak of metrics that exist, and the rules fire when they should."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics_core import Metric

from ai_client.cli.arguments import build
from ai_client.configure.shared_budgets import SharedBudget
from ai_client.coordination.lease import Lease
from ai_client.coordination.lease import Moment as LeaseMoment
from ai_client.coordination.protocol import Terms
from ai_client.coordination.status import status_of
from ai_client.coordination.window import LeasedWindow
from ai_client.gateway.watch.gauges import ServiceState, StateCollector, registry_of
from ai_client.metrics import Recorder
from ai_client.settings.sections import SECTIONS
from tests.client.service_rig import program

FOLDER = Path(__file__).parents[3] / "client" / "observability"
NAME = re.compile(r"\b(?:ai_client|gen_ai_client|process)_[a-z_]+\b")
SUFFIX = re.compile(r"_(?:bucket|sum|count|total)$")


def families() -> Iterator[Metric]:
    """All metrics of a service."""
    recorder = Recorder(provider="example.org", models=[], tenants=[])
    limits = {f"{side}_{kind}": 1 for side in ("limit", "window") for kind in ("requests", "tokens")}
    stats = {"queued": 0, "pool": {"in_use": 0, "size": 1}, **limits}
    now = LeaseMoment(0, 0)
    lease = Lease("h", "i", share=1, floor=1, now=now, remembers_share=True, terms=Terms())
    quota = status_of(LeasedWindow(lease, None, boot=float, wall=float))
    moment = ServiceState(
        connections=0,
        requests_in_flight=0,
        client=stats,
        certificate_expires_at_s=0.0,
        quota=quota,
        shared_budgets=(SharedBudget("all", "day", limit=1, held=0, used=0, free=1),),
    )
    moments = StateCollector(moment)
    moments.batches = ()
    yield from registry_of(recorder, moments).collect()


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


def test_what_the_alerts_advise_can_be_done() -> None:
    """Commands are ones of `ai-client`, sections ones of its file, and stacks' keys are named whole."""
    text = (FOLDER / "alerts.yml").read_text()
    for words in re.findall(r"`ai-client ([^`]+)`", text):
        build().parse_args(shlex.split(words))
    advice = " ".join(re.findall(r"remedy: (.+)", text))
    assert set(re.findall(r"\[(\w+)\]", advice)) <= set(SECTIONS)
    assert set(re.findall(r"fleet:\w+", advice)) <= {"fleet:account"}
    assert re.findall(r"\b[a-z]+[A-Z]\w*", advice) == []


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


def test_the_scrape_example_is_a_configuration_of_prometheus() -> None:
    """Whose job is the one that dashboard and alerts ask for, and whose alerts are those beside it."""
    config = FOLDER / "prometheus.yml"
    done = subprocess.run(
        [program("promtool", package="prometheus"), "check", "config", str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    jobs = re.findall(r'job="([^"]+)"', (FOLDER / "dashboard.json").read_text().replace("\\", ""))
    assert set(jobs) == set(re.findall(r"job_name: (\S+)", config.read_text())) == {"ai-client"}


def test_what_has_a_bound_has_thresholds() -> None:
    """Errors, overhead, waiting, breakers, budgets and faults are coloured where they are bad."""
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    marked = {
        panel["title"]
        for panel in panels
        if "red" in json.dumps(panel.get("fieldConfig", {}).get("defaults", {}).get("thresholds", {}))
    }
    assert marked >= {
        *("Failed requests", "Overhead of the service", "Queue wait, p95 by priority"),
        *("Circuit breakers", "Budgets used", "Faults of the gateway", "Limits used"),
    }
