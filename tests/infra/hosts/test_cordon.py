"""Hosts that are to be left as they are."""

import pytest

from infra.errors import SettingsError
from infra.hosts import fleet
from infra.hosts.model import Fleet
from infra.plan import blockers
from infra.state.quota import compile_limits
from tests.infra.stacks import HOST_KEY, KEY, load, shipped


def built(**changes: object) -> Fleet:
    settings = load(shipped("production") | changes)
    return compile_limits(settings, fleet.build(settings))


def test_a_host_is_cordoned_by_name_or_where_it_is_declared() -> None:
    """By name, instances of EC2 can be cordoned too."""
    groups = shipped("production")["groups"]
    groups["ai_batch_workers"]["hosts"]["batch-worker-02"]["cordoned"] = True
    assert fleet.cordoned(built(groups=groups, cordon=["web-prod-02"])) == ("web-prod-02", "batch-worker-02")
    assert fleet.cordoned(built()) == ()


def test_a_cordoned_host_keeps_its_part_of_the_quota() -> None:
    """It still sends what it may: the limits of the others are as if it were not cordoned."""
    groups = shipped("production")["groups"]
    groups["ai_api_clients"]["share"] = 0.5
    quota = {"groups": groups, "account": {"rpm": 3000}}
    assert built(**quota, cordon=["web-prod-02"]).groups[0].variables == built(**quota).groups[0].variables


def test_a_name_that_the_stack_does_not_have_is_refused() -> None:
    """A host that was meant to be left alone would not be."""
    with pytest.raises(
        SettingsError, match=r"fleet:cordon: the stack has no host 'web-prod-2'; did you mean"
    ):
        built(cordon=["web-prod-2"])


def test_up_does_not_wait_for_the_host_key_of_a_cordoned_host() -> None:
    """Nothing is going to contact it."""
    config = shipped("production") | {"apiKey": KEY, "cordon": ["web-prod-01"]}
    for group in ("ai_api_clients", "ai_batch_workers"):
        for name, host in config["groups"][group]["hosts"].items():
            host.update({} if name == "web-prod-01" else {"hostKeys": [HOST_KEY]})
    settings = load(config)
    assert blockers.blockers(settings, fleet.build(settings)) == ()
