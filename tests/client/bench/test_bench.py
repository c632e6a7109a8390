"""`ai-client bench`: what it measures, its targets, its picture, and that it measures a real service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from ai_client.bench import picture, targets
from ai_client.bench.load import Load, bodies
from ai_client.bench.measure import Sample, quantile_ms, summarize
from ai_client.testing import Simulator, SimulatorOptions
from tests.browser import shown_at
from tests.client.service_rig import Rig, running_service

pytestmark = pytest.mark.slow

LOAD = Load(
    requests=100,
    at_once=4,
    rate_rps=None,
    model="gpt-4.1",
    max_tokens=4,
    is_streamed=False,
    repeat_share=0.3,
    max_usd=1.0,
    seed=1,
)


def sample(took_s: float, code: str = "", *, is_cached: bool = False) -> Sample:
    """A request of half a cent."""
    return Sample(began_s=0.0, took_s=took_s, code=code, cost_usd=0.0 if code else 0.005, is_cached=is_cached)


def test_a_summary_is_what_the_samples_come_to() -> None:
    """Latency of what was answered, errors by code, cost for a thousand answers."""
    samples = [sample(0.1), sample(0.2, is_cached=True), sample(0.3), sample(9.0, "upstream_timeout")]
    summary = summarize("a", samples, seconds=2.0, pool_peak=3, pool_size=10)
    assert (summary.average_ms, summary.p50_ms, summary.p99_ms) == (pytest.approx(200), 200, 300)
    assert (summary.throughput_rps, summary.error_rate) == (1.5, 0.25)
    assert summary.cost_per_1000_usd == pytest.approx(5.0)
    assert summary.cache_hit_rate == pytest.approx(1 / 3)
    assert summary.errors == {"upstream_timeout": 1}


def test_a_run_without_answers_has_no_latency() -> None:
    """And keeps no target on it."""
    summary = summarize("a", [sample(1.0, "draining")], seconds=1.0)
    assert (summary.p95_ms, summary.throughput_rps) == (None, 0)
    assert not targets.parse("p95_ms<=1000").is_met(summary)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_quantiles_are_by_nearest_rank(share: float, expected: float) -> None:
    """Of a hundred values."""
    assert quantile_ms([value / 1000 for value in range(1, 101)], share) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "is_met"),
    [
        ("p50_ms<=100", True),
        ("p50_ms <= 99", False),
        ("throughput_rps>=1", True),
        ("error_rate=0", True),
        ("requests=2", False),
    ],
)
def test_targets_hold_or_not(text: str, is_met: bool) -> None:
    """`=` is at most for times and errors, at least for the rest."""
    assert targets.parse(text).is_met(summarize("a", [sample(0.1)], seconds=1.0)) is is_met


@pytest.mark.parametrize("text", ["p95_ms", "speed<=3", "p95_ms<=fast", "provider<=1"])
def test_a_target_that_can_not_be_read_is_named(text: str) -> None:
    """With what is measured."""
    with pytest.raises(targets.TargetError):
        targets.parse(text)


def test_requests_are_the_same_for_a_seed_and_repeat_as_often_as_asked() -> None:
    """So that two providers get the same, and no cache knows them from before."""
    made = bodies(LOAD)
    distinct = {body["messages"][0]["content"] for body in made}
    assert made == bodies(LOAD)
    assert 55 <= len(distinct) <= 85


def test_the_picture_is_one_page_that_shows_names_as_text() -> None:
    """Well formed, nothing outside, markup escaped."""
    samples = [sample(0.1), sample(0.4, "<b>")]
    text = picture.page("run", [(summarize("<i>a</i>", samples, seconds=1.0), samples)], ["met: <x>"])
    HTMLParser().feed(text)
    assert "<i>" not in text
    assert "<x>" not in text
    assert "http" not in text
    assert text.count("<circle") == 2


def test_the_picture_shows_the_runs_figures_from_400_px_to_wide_dark_and_light(tmp_path: Path) -> None:
    """Two providers side by side, one with a long name: every figure of the table is the summary's."""
    samples = [sample(0.1), sample(0.2), sample(0.4)]
    runs = [(summarize(name, samples, seconds=1.0), samples) for name in ("this host", "other-" * 12)]
    colours = set()
    for width, scheme in ((400, 1), (400, 0), (2400, 1)):
        shown = shown_at(
            picture.page("run", runs, ["met: p95_ms < 500"]), tmp_path, width=width, scheme=scheme
        )
        assert shown.needed_px <= width, (width, shown.needed_px)
        colours.add(shown.colours)
        lines = {
            line.split()[0]: line.split()[1:] for line in shown.text.splitlines() if len(line.split()) == 3
        }
        for name, value in asdict(runs[0][0]).items():
            if name not in {"provider", "errors"}:
                assert lines[name] == ["–" if value is None else format(value, ".6g")] * 2, (name, lines)
        assert "400 ms" in shown.text
    assert len(colours) == 2


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A running service with a provider that takes 5 ms."""
    async with (
        Simulator(SimulatorOptions(latency_ms=5)) as simulator,
        running_service(tmp_path, simulator) as running,
    ):
        yield running


async def test_a_service_is_measured_beside_another_provider(rig: Rig) -> None:
    """Both columns, with cost, cache and pool; the picture is drawn."""
    plot = rig.folder / "bench.html"
    against = rig.config.read_text().split("base_url = ")[1].split()[0]
    done = await rig.command(
        *("bench", "--json", "--requests", "60", "--against", against, "--plot", str(plot)),
        *("--against-key-file", str(rig.key_file), "--target", "error_rate<=0", "--target", "p50_ms<=5000"),
    )
    assert done.code == 0, done.err
    ours, theirs = done.json()["runs"]
    assert (ours["requests"], theirs["requests"]) == (60, 60)
    assert ours["cache_hit_rate"] > 0
    assert theirs["cache_hit_rate"] == 0
    assert ours["cost_per_1000_usd"] > 0
    assert ours["pool_size"] == 100
    assert plot.read_text().count("<svg") == 2


async def test_a_missed_target_sets_the_exit_code(rig: Rig) -> None:
    """1, and which one."""
    done = await rig.command("bench", "--requests", "10", "--target", "p50_ms<=0.001")
    assert done.code == 1
    assert "missed: p50_ms" in done.out
    assert "throughput_rps" in done.out


async def test_load_at_a_multiple_of_peak_comes_at_that_rate(rig: Rig) -> None:
    """Twice 30 a second, whatever the answers do; streams have a first byte."""
    done = await rig.command(
        "bench", "--json", "--stream", "--requests", "60", "--peak-rps", "30", "--repeat", "0"
    )
    [ours] = done.json()["runs"]
    assert 0.9 < ours["seconds"] < 8
    assert ours["first_byte_p50_ms"] > 0


async def test_a_stream_costs_what_the_ledger_books_for_it(rig: Rig) -> None:
    """Its headers come before its usage does; one from the cache costs nothing; the cap holds for streams too."""
    done = await rig.command("bench", "--json", "--stream", "--requests", "30")
    [ours] = done.json()["runs"]
    assert ours["cache_hit_rate"] > 0
    async with httpx.AsyncClient() as client:
        scraped = (await client.get(f"http://127.0.0.1:{rig.metrics_port}/metrics")).text
    counted = [line for line in scraped.splitlines() if line.startswith("ai_client_cost_usd_total{")]
    assert ours["cost_usd"] > 0
    assert ours["cost_usd"] == pytest.approx(sum(float(line.rpartition(" ")[2]) for line in counted))
    capped = await rig.command(
        *("bench", "--json", "--stream", "--requests", "100", "--max-usd", "0.002", "--repeat", "0")
    )
    assert capped.json()["runs"][0]["requests"] < 60


async def test_a_bench_ends_where_it_has_cost_enough(rig: Rig) -> None:
    """A cap on real money."""
    done = await rig.command("bench", "--json", "--requests", "100", "--max-usd", "0.002", "--repeat", "0")
    [ours] = done.json()["runs"]
    assert ours["requests"] < 60


async def test_without_a_service_nothing_can_be_measured(rig: Rig) -> None:
    """Exit code 2 and where to look."""
    await rig.stop()
    done = await rig.command("bench", "--requests", "3")
    assert done.code == 2
    assert "--health-check" in done.err
