"""What a shared quota is for: that it is used, wherever the demand is, and for few calls of the engine."""

from __future__ import annotations

import pytest

from tests.client.coordination.moving_demand import Demand, fullest

#: Until the books are sure of all hosts.
_BEGINNING_S = 200


@pytest.mark.parametrize(("hosts", "share"), [(20, 60), (12, 60), (20, 400)])
def test_nearly_all_is_used_where_all_hosts_ask_for_too_much(hosts: int, share: int) -> None:
    demand = Demand(hosts=hosts, share=share)
    demand.run(_BEGINNING_S)
    began_ms = demand.run(240)
    assert demand.used(from_ms=began_ms) >= 0.95
    assert fullest(demand.arrivals) <= demand.rpm


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("hosts", "share"), [(20, 60), (20, 400), (4, 400)])
def test_nine_tenths_are_used_while_the_demand_moves_to_other_hosts(
    hosts: int, share: int, seed: int
) -> None:
    """Every two minutes, to a quarter of them."""
    demand = Demand(hosts=hosts, share=share, seed=seed)
    demand.run(_BEGINNING_S)
    began_ms = demand.now_ms
    for _ in range(3):
        demand.move(busy=hosts // 4)
        demand.run(120)
    assert demand.used(from_ms=began_ms) >= 0.9
    assert fullest(demand.arrivals) <= demand.rpm


def test_a_host_of_400_a_minute_sends_a_hundred_requests_a_call() -> None:
    demand = Demand(hosts=20, share=400)
    demand.run(_BEGINNING_S)
    calls, sent = demand.calls, len(demand.arrivals)
    demand.run(240)
    assert len(demand.arrivals) - sent >= 100 * (demand.calls - calls)
