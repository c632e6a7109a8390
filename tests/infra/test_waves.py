import pytest

from infra.nodes import Node
from infra.waves import waves

NODES = tuple(Node(name=f"n{i}", address=f"10.0.0.{i}") for i in range(1, 6))


@pytest.mark.parametrize(
    ("canary", "serial", "sizes"),
    [(1, None, [1, 4]), (0, None, [5]), (1, 2, [1, 2, 2]), (2, 2, [2, 2, 1]), (5, None, [5]), (9, 1, [5])],
)
def test_the_canary_goes_first_then_the_rest_in_steps(
    canary: int, serial: int | None, sizes: list[int]
) -> None:
    """Waves keep the order of the configuration, and each node is in just one."""
    found = waves(NODES, canary=canary, serial=serial)
    assert [len(wave) for wave in found] == sizes
    assert tuple(node for wave in found for node in wave) == NODES


def test_a_group_without_nodes_has_no_wave() -> None:
    """Nothing to do is no wave, rather than an empty one."""
    assert waves((), canary=1, serial=2) == ()
