from collections.abc import Sequence
from typing import Any

import pytest

from infra.hosts.model import Node
from infra.hosts.waves import Step, waves
from tests.infra.stacks import load, shipped

NODES = tuple(Node(name=f"n{i}", address=f"10.0.0.{i}") for i in range(1, 6))


def in_zones(zones: str) -> tuple[Node, ...]:
    """A node in each zone of a text such as "aab"."""
    return tuple(Node(name=f"{zone}{i}", address=f"10.0.0.{i}", zone=zone) for i, zone in enumerate(zones))


@pytest.mark.parametrize(
    ("canary", "serial", "sizes"),
    [
        (1, (), [1, 4]),
        (0, (), [5]),
        (1, (2,), [1, 2, 2]),
        (2, (2,), [2, 2, 1]),
        (5, (), [5]),
        (9, (1,), [5]),
        (1, ("40%", "100%"), [1, 2, 2]),
        (0, (1, 2), [1, 2, 2]),
        (0, ("1%",), [1, 1, 1, 1, 1]),
    ],
)
def test_the_canary_goes_first_then_the_rest_in_steps(
    canary: int, serial: Sequence[Step], sizes: list[int]
) -> None:
    """Waves keep the order of the configuration, and each node is in just one."""
    found = waves(NODES, canary=canary, serial=serial)
    assert [len(wave) for wave in found] == sizes
    assert tuple(node for wave in found for node in wave) == NODES


@pytest.mark.parametrize(
    ("zones", "canary", "serial", "found"),
    [
        ("aabb", 1, (), ["a0", "a1", "b2 b3"]),
        ("abab", 0, (), ["a0 a2", "b1 b3"]),
        ("abab", 1, (5,), ["a0", "a2", "b1 b3"]),
        ("aaabbb", 1, (1, "100%"), ["a0", "a1", "a2", "b3 b4 b5"]),
    ],
)
def test_no_wave_has_hosts_of_two_zones(
    zones: str, canary: int, serial: Sequence[Step], found: list[str]
) -> None:
    """A bad change that only shows under load takes one zone at most with it."""
    made = waves(in_zones(zones), canary=canary, serial=serial)
    assert [" ".join(node.name for node in wave) for wave in made] == found


def names(
    *recorded: str, nodes: tuple[Node, ...] = NODES, canary: int = 1, serial: Sequence[Step] = ()
) -> list[str]:
    made = waves(nodes, canary=canary, serial=serial, recorded=[wave.split() for wave in recorded])
    return [" ".join(node.name for node in wave) for wave in made]


def test_a_new_host_comes_last_and_moves_nobody() -> None:
    """Whatever its name is: a host more runs nothing on the others, and gets its limits after theirs were lowered."""
    assert names("n2", "n3 n4") == ["n2", "n3 n4", "n1 n5"]
    assert names("n2", "n3 n4", serial=(2,)) == ["n2", "n3 n4", "n1 n5"]
    assert names("n1", "n2 n3 n4 n5") == ["n1", "n2 n3 n4 n5"]


def test_a_host_that_left_leaves_the_other_waves_alone() -> None:
    """They stay together as they were."""
    assert names("n1", "n2 gone", "n3 n4 n5") == ["n1", "n2", "n3 n4 n5"]


def test_waves_that_the_settings_allow_no_longer_are_laid_out_anew() -> None:
    """Too large ones, ones of two zones, a canary that is none, and far too many."""
    assert names("n1", "n2 n3 n4 n5", serial=(2,)) == ["n1", "n2 n3", "n4 n5"]
    assert names("n1 n2", "n3 n4 n5") == ["n1", "n2 n3 n4 n5"]
    zoned = in_zones("aab")
    assert names("a0", "a1 b2", nodes=zoned) == ["a0", "a1", "b2"]
    assert names("n1", "n2", "n3", "n4") == ["n1", "n2 n3 n4 n5"]
    assert names("n1", "n2", "n3") == ["n1", "n2", "n3", "n4 n5"]


def test_a_group_without_nodes_has_no_wave() -> None:
    """Nothing to do is no wave, rather than an empty one."""
    assert waves((), canary=1, serial=(2,)) == ()


@pytest.mark.parametrize("serial", [2, "25%", [1, "25%", "100%"]])
def test_serial_is_one_step_or_several(serial: Any) -> None:
    """As Ansible users write it."""
    config = shipped("production")
    config["groups"]["ai_api_clients"]["serial"] = serial
    steps = load(config).groups["ai_api_clients"].serial
    assert steps == tuple(serial if isinstance(serial, list) else [serial])


@pytest.mark.parametrize("serial", [0, "0%", "101%", "25", "all", [2, -1], True])
def test_a_step_that_is_none_is_named(serial: Any) -> None:
    """It would never end, or take everything at once."""
    config = shipped("production")
    config["groups"]["ai_api_clients"]["serial"] = serial
    with pytest.raises(Exception, match=r"fleet:groups\.ai_api_clients\.serial") as refused:
        load(config)
    assert "25%" in str(refused.value)
