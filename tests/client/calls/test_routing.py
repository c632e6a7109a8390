"""Routing by declared importance."""

from __future__ import annotations

import pytest

from ai_client.calls.routing import ImportanceRouting
from ai_client.contract.request import Importance, Request


def request(importance: Importance | None, endpoint: str = "chat/completions") -> Request:
    return Request(endpoint=endpoint, body={"model": "asked"}, importance=importance)


def test_ordinary_goes_to_the_cheap_model_and_critical_to_the_strong_one() -> None:
    """Undeclared requests, and endpoints that have models of their own, stay as they are."""
    routing = ImportanceRouting(ordinary="cheap", critical="strong")
    assert routing.route(request(Importance.ORDINARY)) == "cheap"
    assert routing.route(request(Importance.CRITICAL)) == "strong"
    assert routing.route(request(None)) == "asked"
    assert routing.route(request(Importance.CRITICAL, "embeddings")) == "asked"


def test_the_planned_share_is_reported_beside_the_actual_one() -> None:
    """80/20 planned, 70/30 seen; only what was routed counts."""
    routing = ImportanceRouting(ordinary="cheap", critical="strong", critical_share=0.2)
    assert routing.report().actual_critical_share is None
    for index in range(10):
        routing.route(request(Importance.CRITICAL if index < 3 else Importance.ORDINARY))
        routing.route(request(None))
    report = routing.report()
    assert (report.ordinary, report.critical, report.target_critical_share) == (7, 3, 0.2)
    assert report.actual_critical_share == pytest.approx(0.3)
