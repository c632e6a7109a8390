"""How long a wave may take."""

import pytest

from infra import run_slots
from infra.resources.deployment import longest_run_s


@pytest.mark.parametrize(
    ("more", "less"),
    [
        ({"hosts": 51, "gate_s": 0}, {"hosts": 50, "gate_s": 0}),
        ({"hosts": 1, "gate_s": 900}, {"hosts": 1, "gate_s": 15}),
        (
            {"hosts": 1, "gate_s": 0, "groups": run_slots.AT_ONCE + 1},
            {"hosts": 1, "gate_s": 0, "groups": run_slots.AT_ONCE},
        ),
    ],
)
def test_more_hosts_a_longer_gate_and_more_groups_than_slots_take_longer(
    more: dict[str, int], less: dict[str, int]
) -> None:
    """A run is not ended for what was asked of it, nor for waiting until others are done."""
    assert longest_run_s(**more) > longest_run_s(**less)


def test_a_wave_may_take_the_gate_twice_and_its_waiting() -> None:
    """Once to watch the change, once after it was put back; for each turn that it may wait."""
    alone = longest_run_s(1, gate_s=600) - longest_run_s(1, gate_s=0)
    assert alone == 1200
    assert longest_run_s(1, gate_s=0, groups=40) == 5 * longest_run_s(1, gate_s=0)
