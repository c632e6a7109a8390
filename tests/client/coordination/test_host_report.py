"""What a host says of itself: whoever may call the engine may say anything, and none of it breaks a reader."""

from __future__ import annotations

import json

import pytest

from ai_client.cli import fleet_usage
from ai_client.cli.fleet import as_text
from ai_client.coordination.host_report import HostReport, KnownHost, known_hosts


def test_a_word_comes_back_as_it_was_said() -> None:
    said = HostReport(
        release="r" * 64, is_well=False, trouble="key: refused", files="changed", rpm=40, requests=7
    )
    (found,) = known_hosts({"h": said.encode()}, {"h": "90"}, now_s=100)
    assert found == KnownHost("h", said, 10)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "null",
        '{"rpm": "many"}',
        '{"rpm": true}',
        '{"other": 1}',
        '{"tenants": {}}',
        '{"tenants": [[1]]}',
        '{"is_well": "yes"}',
        "\x00",
    ],
)
def test_what_is_no_word_is_taken_for_none(text: str) -> None:
    (found,) = known_hosts({"h": text}, {}, now_s=100)
    assert found.report.rpm == 0
    assert found.age_s == 100


def test_a_hostile_word_writes_nothing_to_a_terminal() -> None:
    text = json.dumps({"trouble": "\x1b[2J" + "x" * 10_000, "version": "1\n2"})
    (found,) = known_hosts({"h": text}, {"h": "1"}, now_s=1)
    shown = as_text([found.as_json()])
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 3
    assert len(shown) < 1000


def test_what_a_fleet_spent_is_the_sum_of_what_its_hosts_say() -> None:
    """A host that last spoke yesterday spent nothing today that is known, and one of last month nothing this month."""
    words = {
        "a": HostReport(
            day="2026-12-02",
            today_nusd=1_500_000_000,
            month_nusd=4_000_000_000,
            tenants=(("web", 1_500_000_000, 2_000_000_000),),
        ),
        "b": HostReport(
            day="2026-12-01",
            today_nusd=700_000_000,
            month_nusd=700_000_001,
            tenants=(("ci", 1, 1), ("web", 700_000_000, 700_000_000)),
        ),
        "c": HostReport(day="2026-11-30", today_nusd=1, month_nusd=9_000_000_000),
        "d": HostReport(),
    }
    hosts = [each.as_json() for each in known_hosts({h: w.encode() for h, w in words.items()}, {}, now_s=0)]
    budgets = [{"scope": "all", "period": "day", "limit_usd": 9.0, "free_usd": 2.5}]
    found = fleet_usage.as_json(hosts, budgets=budgets)
    assert found["day"] == "2026-12-02"
    assert found["total"] == {"today_usd": 1.5, "month_usd": 4.700000001}
    assert [each["month_usd"] for each in found["hosts"]] == [4.0, 0.700000001, 0.0, 0.0]
    assert [each["month_share"] for each in found["hosts"]] == [0.8511, 0.1489, 0.0, 0.0]
    assert found["tenants"]["web"] == {"today_usd": 1.5, "month_usd": 2.7}
    lines = [line.split() for line in fleet_usage.as_text(found).splitlines()]
    assert lines[5] == ["total", "1.500000", "4.700000"]
    assert [line[:2] for line in lines[8:13]] == [
        ["ci", "b"], ["ci", "total"], ["web", "a"], ["web", "b"], ["web", "total"],
    ]  # fmt: skip
    assert lines[12][2:] == ["1.500000", "2.700000"]
    assert lines[-1] == ["all", "day", "9.000000", "2.500000"]
