"""What a run is told."""

from typing import Any

from infra.hosts import fleet
from infra.hosts.model import Captured
from infra.playbook import requests
from tests.infra.stacks import KEY, load, shipped


def cleaned_up(config: dict[str, Any], host: str, *, stack: str = "production") -> dict[str, Any]:
    """Variables with which a host is decommissioned."""
    settings = load(config, stack=stack)
    declared = fleet.build(settings)
    node = next(node for node in declared.targets if node.name == host)
    order = requests.decommission(settings, declared, Captured(), node=node)
    return dict(order.inventory["all"]["hosts"][host])


def test_a_host_is_cleaned_up_where_its_outermost_group_put_things() -> None:
    """Folders that are set on a group of groups, too; and nothing that a clean-up does not need."""
    config = shipped("production")
    config["groups"]["production"]["vars"]["ai_log_dir"] = "/srv/log"
    config["groups"]["ai_batch_workers"]["vars"]["ai_cache_dir"] = "/srv/cache"
    variables = cleaned_up(config, "batch-worker-01")
    assert variables["ai_log_dir"] == "/srv/log"
    assert variables["ai_cache_dir"] == "/srv/cache"
    assert "ai_batch_mode" not in variables


def test_the_ledger_of_a_host_is_fetched_unless_the_stack_says_otherwise() -> None:
    """Below the project folder; somewhere else or not at all where `ai_fetch_dir` says so."""
    config = shipped("production")
    assert cleaned_up(config, "web-prod-01")["ai_fetch_dir"] == "decommissioned"
    config["vars"] = {"ai_fetch_dir": "/srv/kept"}
    assert cleaned_up(config, "web-prod-01")["ai_fetch_dir"] == "/srv/kept"
    config["groups"]["ai_api_clients"]["vars"]["ai_fetch_dir"] = ""
    assert cleaned_up(config, "web-prod-01")["ai_fetch_dir"] == ""


def test_the_ledger_of_a_host_of_this_machine_is_thrown_away_with_it() -> None:
    """Its upstream is a simulator."""
    assert "ai_fetch_dir" not in cleaned_up(shipped("dev"), "api-dev-01", stack="dev")


def test_a_take_over_is_told_to_deploys_and_to_no_clean_up() -> None:
    """`fleet:takeOver` names another owner: its hosts become this stack's, and none of them is removed for it."""
    config = shipped("production") | {"apiKey": KEY, "takeOver": "fleet/production@0123456789ab"}
    settings = load(config)
    declared = fleet.build(settings)
    nodes = [node for node in declared.targets if node.name == "web-prod-01"]
    order = requests.deploy(settings, declared, Captured(), group="ai_api_clients", nodes=nodes)
    assert order.inventory["all"]["vars"]["ai_take_over"] == "fleet/production@0123456789ab"
    assert "ai_take_over" not in cleaned_up(config, "web-prod-01")
