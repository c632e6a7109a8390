"""Which variable wins: as Ansible says, for every tree of groups."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from infra.config.precedence import Precedence, renamed
from infra.errors import ManySettingsError, SettingsError
from infra.hosts import fleet, house_rules
from infra.hosts.inventory import as_yaml, inventory
from infra.plan import render
from infra.plan.visible_inputs import VisibleInputs
from infra.state import quota
from policy import subjects
from tests.infra.stacks import load

NAMES = ("ai_rpm", "ai_tpm", "ai_timeout", "ai_max_retries")
VARS = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 3), max_size=3)
PRIORITY = st.dictionaries(st.just("ansible_group_priority"), st.integers(0, 3), max_size=1)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of up to three leaf groups with hosts, in up to four groups of groups, in any order of names."""
    names = draw(st.permutations(["aa", "bb", "cc", "dd", "mm", "yy", "zz"]))
    leaves, above = names[: draw(st.integers(1, 3))], names[3 : 3 + draw(st.integers(0, 4))]
    groups: dict[str, Any] = {}
    for number, name in enumerate(leaves):
        hosts = {
            f"h{number}-{n}": {"address": f"10.0.{number}.{n}", "vars": draw(VARS)}
            for n in range(draw(st.integers(1, 2)))
        }
        groups[name] = {"hosts": hosts, "vars": draw(VARS) | draw(PRIORITY)}
    for number, name in enumerate(above):
        below = [*leaves, *above[:number]]
        children = draw(st.lists(st.sampled_from(below), min_size=1, max_size=3, unique=True))
        groups[name] = {"children": children, "vars": draw(VARS) | draw(PRIORITY)}
    # Variables of all hosts would be those of all trees in the one inventory that Ansible reads.
    return {"environment": "production", "groups": groups}


def by_ansible(content: Mapping[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    """What Ansible itself gives every host of an inventory."""
    source = folder / "inventory.yml"
    source.write_text(as_yaml(dict(content)))
    argv = [str(Path(sys.executable).parent / "ansible-inventory"), "-i", str(source), "--list"]
    asked = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    return dict(json.loads(asked.stdout)["_meta"]["hostvars"])


def tags(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The drawn variables of hosts that have some: Ansible lists no others."""
    found = {host: {name: own[name] for name in NAMES if name in own} for host, own in hosts.items()}
    return {host: own for host, own in found.items() if own}


def test_everybody_sees_what_ansible_gives_a_host(tmp_path: Path) -> None:
    """House rules, quota, plan, policy pack and inventory agree with `ansible-inventory`, whatever the tree.

    All trees of one run go into one inventory, side by side, as Ansible takes a second to start.
    """
    drawn: list[dict[str, Any]] = []

    @settings(
        max_examples=150, database=None, deadline=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(trees())
    def draw(tree: dict[str, Any]) -> None:
        drawn.append(tree)

    draw()
    expected, checked = by_ansible(_side_by_side(drawn), tmp_path), 0
    for number, tree in enumerate(drawn):
        mark = f"t{number}-"
        hosts = {name.removeprefix(mark): own for name, own in expected.items() if name.startswith(mark)}
        assert tags(_by_settings(tree)) == tags(hosts)
        checked += len(hosts)
    assert checked > 300


def _by_settings(tree: dict[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What the program says that each host sees, asked by all its ways."""
    try:
        loaded = load(tree)
    except SettingsError as error:
        errors = error.errors if isinstance(error, ManySettingsError) else (error,)
        assert all("disagree" in each.reason for each in errors)
        loaded = load(_without_checks(tree))
    built = fleet.build(loaded)
    content = inventory(built, loaded.vars)
    seen = VisibleInputs(loaded, built).seen
    found = {host: seen.variables(host) for host in seen.hosts}
    shown = {"type": subjects.STACK, "props": {"inventory": content}, "name": "x", "urn": "x"}
    assert tags(subjects.hosts(shown)) == tags(found)
    limits = quota.limits_of(seen, built)
    for host, own in found.items():
        planned = render.host_variables(content, host)
        assert {name: planned[name] for name in NAMES if name in own} == tags(found).get(host, {})
        assert (limits[host].rpm, limits[host].tpm) == (own.get("ai_rpm", 60), own.get("ai_tpm", 0))
    return found


def _without_checks(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with a priority of its own for every group, in the order of names: nothing is left to disagree."""
    groups = {
        name: {**group, "vars": {"ansible_group_priority": 1, **group["vars"]}}
        for name, group in tree["groups"].items()
    }
    ranked = sorted(groups, key=lambda name: (groups[name]["vars"]["ansible_group_priority"], name))
    for rank, name in enumerate(ranked, start=1):
        groups[name]["vars"]["ansible_group_priority"] = rank
    return {**tree, "groups": groups}


def _side_by_side(drawn: list[dict[str, Any]]) -> dict[str, Any]:
    """One inventory of all trees: every name gets the number of its tree."""

    def group(number: int, tree: dict[str, Any], name: str) -> dict[str, Any]:
        own = tree["groups"][name]
        return {
            "hosts": {f"t{number}-{host}": entry["vars"] for host, entry in own.get("hosts", {}).items()},
            "children": {
                f"t{number}_{child}": group(number, tree, child) for child in own.get("children", ())
            },
            "vars": own["vars"],
        }

    held = [{child for own in tree["groups"].values() for child in own.get("children", ())} for tree in drawn]
    return {
        "all": {
            "children": {
                f"t{number}_{name}": group(number, tree, name)
                for number, tree in enumerate(drawn)
                for name in tree["groups"]
                if name not in held[number]
            }
        }
    }


def test_variables_of_all_hosts_are_the_weakest_and_a_hosts_own_the_strongest() -> None:
    """The ends of the order."""
    group = {"vars": {"b": 2, "c": 2}, "hosts": {"h": {"c": 3}}}
    content = {"all": {"vars": {"a": 1, "b": 1, "c": 1}, "children": {"g": group}}}
    assert Precedence.of_inventory(content).variables("h") == {"a": 1, "b": 2, "c": 3}


def two_parents(**web: Any) -> dict[str, Any]:
    return {
        "environment": "production",
        "groups": {
            "aaa": {"children": ["web"], "vars": {"ai_verify_ssl": True, "ai_rpm": 10}},
            "web": {"hosts": {"web-1": {"address": "10.0.0.1"}}} | web,
            "zzz": {"children": ["web"], "vars": {"ai_verify_ssl": False, "ai_rpm": 10}},
        },
    }


def test_two_parents_of_one_depth_that_disagree_are_refused_with_both_names() -> None:
    """Only the order of their names would decide, and that is nobody's intention; where they agree nothing is said."""
    with pytest.raises(SettingsError) as raised:
        load(two_parents())
    assert (
        raised.value.culprit == "fleet:groups.aaa.vars.ai_verify_ssl and fleet:groups.zzz.vars.ai_verify_ssl"
    )
    assert "ai_rpm" not in str(raised.value)
    assert "ansible_group_priority" in raised.value.remedy


def test_parents_of_a_cloud_group_may_not_disagree_either() -> None:
    """Its hosts are not known when the settings are read; what they would see is."""
    ec2 = {"source": "ec2", "ec2": {"filters": {"tag:Role": ["web"]}}, "hosts": {}}
    with pytest.raises(SettingsError, match="the hosts of \\(web\\) and disagree"):
        load(two_parents(**ec2))


@pytest.mark.parametrize(
    "web",
    [
        {"vars": {"ai_verify_ssl": True}},
        {"hosts": {"web-1": {"address": "10.0.0.1", "vars": {"ai_verify_ssl": True}}}},
    ],
)
def test_what_a_group_or_host_below_decides_is_no_disagreement(web: dict[str, Any]) -> None:
    """The nearer place wins, whatever its parents say."""
    assert load(two_parents(**web))


def test_a_priority_decides_and_the_house_rules_see_what_it_decides() -> None:
    """A second parent can no longer switch TLS verification off past the rules."""
    config = two_parents()
    config["groups"]["aaa"]["vars"]["ansible_group_priority"] = 2
    house_rules.check(load(config), fleet.build(load(config)))
    config["groups"]["zzz"]["vars"]["ansible_group_priority"] = 3
    declared = load(config)
    with pytest.raises(
        SettingsError, match=r"^fleet:groups\.zzz\.vars\.ai_verify_ssl: turns TLS verification off"
    ):
        house_rules.check(declared, fleet.build(declared))


@pytest.mark.parametrize("name", ["all", "ungrouped"])
def test_a_group_that_every_inventory_has_is_refused(name: str) -> None:
    """A group `all` would take the place of the variables of all hosts."""
    with pytest.raises(SettingsError, match=f"fleet:groups.{name}: every inventory of Ansible has a group"):
        load({"environment": "x", "groups": {name: {"hosts": {"h": {"address": "10.0.0.1"}}}}})


def test_a_host_and_a_group_of_one_name_are_refused() -> None:
    """Ansible could not tell which one a pattern means."""
    with pytest.raises(SettingsError, match="a group has the name 'web' too"):
        load({"environment": "x", "groups": {"web": {"hosts": {"web": {"address": "10.0.0.1"}}}}})


def test_a_variable_that_stands_twice_under_two_names_is_refused() -> None:
    """`environment` goes to hosts as `ai_environment`."""
    assert renamed({"environment": "x"}) == {"ai_environment": "x"}
    config = {"environment": "x", "groups": {"web": {"hosts": {"h": {"address": "10.0.0.1"}}}}}
    with pytest.raises(SettingsError, match="same variable as ai_environment"):
        load(config | {"vars": {"environment": "a", "ai_environment": "b"}})
