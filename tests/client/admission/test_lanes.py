"""What is kept of models stays bounded, whatever names callers make up."""

from __future__ import annotations

import random

import pytest

from ai_client.admission.lanes import MOST_LANES, Lanes
from ai_client.contract.keys import ApiKey
from ai_client.contract.options import ClientOptions, Limits

KEY = ApiKey("hs_test_0123456789abcdef")
OTHER_KEY = ApiKey("hs_test_fedcba9876543210")


@pytest.fixture
def lanes() -> Lanes:
    return Lanes(ClientOptions(), Limits(50, 3000, None), random_source=random.Random(1))  # noqa: S311


def names(lanes: Lanes) -> set[str]:
    return {name for name, _ in lanes.models()}


def test_made_up_names_are_forgotten_and_take_nothing_with_them(lanes: Lanes) -> None:
    """A caller that names ten thousand models must not make the client forget that a real one asked it to wait."""
    real = lanes.lane("gpt-4.1", KEY)
    real.state.is_known = True
    real.throttle.not_before_s = 1e9
    for number in range(10_000):
        lanes.lane(f"made-up-{number}", KEY)
    assert lanes.lane("gpt-4.1", KEY) is real
    assert len(names(lanes)) == MOST_LANES


def test_of_real_models_the_one_used_longest_ago_is_forgotten(lanes: Lanes) -> None:
    """Recency, not the order in which they came."""
    for number in range(MOST_LANES):
        lanes.lane(f"m-{number}", KEY).state.is_known = True
    first = lanes.lane("m-0", KEY)
    lanes.lane("one-more", KEY)
    assert lanes.lane("m-0", KEY) is first
    assert "m-1" not in names(lanes)


def test_a_lane_in_flight_is_never_forgotten(lanes: Lanes) -> None:
    """Its permit will come back to it. So many may be more than the bound."""
    busy = [lanes.lane(f"m-{number}", KEY) for number in range(MOST_LANES)]
    for lane in busy:
        lane.in_flight = 1
    lanes.lane("one-more", KEY)
    assert len(names(lanes)) == MOST_LANES + 1
    assert [lanes.lane(lane.model, KEY) for lane in busy] == busy
    for lane in busy:
        lane.in_flight = 0
    lanes.lane("and-another", KEY)
    assert len(names(lanes)) == MOST_LANES


def test_a_models_state_outlives_one_of_its_keys(lanes: Lanes) -> None:
    """After a rotation the new key's lane shares the breaker with the old one's."""
    old = lanes.lane("m", KEY)
    new = lanes.lane("m", OTHER_KEY)
    for number in range(MOST_LANES - 1):
        lanes.lane(f"other-{number}", KEY).in_flight = 1
    assert lanes.lane("m", OTHER_KEY) is new
    assert new.state is old.state
    assert "m" in names(lanes)
