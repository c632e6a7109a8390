"""Every resource keeps the name and type that states in use know it by.

A resource under another URN is another resource to the engine: a claim's old one would be deleted, which decommissions
its host. `golden/` holds the URNs of two stacks as they were before modules moved for the first time; lines are added
to it for new resources, and none is ever changed or taken out. Who renames a resource gives it an alias.
"""

from pathlib import Path
from typing import Any

import pytest

from infra.hosts import cloud, ec2
from tests.infra.stacks import HOST_KEY, KEY, shipped
from tests.program.stand import Declared, run

GOLDEN = Path(__file__).with_name("golden")


def small() -> dict[str, Any]:
    """One host."""
    hosts = {"web-1": {"address": "10.0.0.1", "hostKeys": [HOST_KEY]}}
    return {"environment": "production", "apiKey": KEY, "probe": False, "groups": {"web": {"hosts": hosts}}}


def large() -> dict[str, Any]:
    """The dev stack's local hosts, 60 static hosts in zones and waves, groups of groups, shares, and EC2."""
    config = shipped("dev") | {"apiKey": KEY, "probe": False, "account": {"rpm": 6000}}
    groups = config["groups"]
    for number in range(1, 4):
        hosts = {
            f"web-{number}-{n:02}": {
                "address": f"10.{number}.0.{n}",
                "hostKeys": [HOST_KEY],
                "zone": f"z{n % 2}",
            }
            for n in range(1, 21)
        }
        groups[f"web_{number}"] = {"hosts": hosts, "canary": number - 1, "serial": [1, "25%", 7][:number]}
    groups["cloud"] = {"source": "ec2", "ec2": {"filters": {"tag:Role": ["api"]}}, "serial": 2}
    groups["webs"] = {"children": ["web_1", "web_2", "web_3"], "vars": {"ai_rpm": 1}}
    groups["everything"] = {"children": ["webs", "cloud"], "vars": {"ai_base_url": "https://api.example/v1"}}
    groups["cloud"]["vars"] = {"ai_rpm": 1}
    groups["ai_api_clients"]["share"] = 0.7
    return config


def _instances(_settings: object) -> dict[str, tuple[ec2.Instance, ...]]:
    return {
        "cloud": tuple(
            ec2.Instance(
                id=f"i-{n:08}",
                account="123456789012",
                region="eu-central-1",
                state="stopped" if n == 5 else "running",
                address=f"10.9.0.{n}",
                zone="eu-central-1a",
                tags={"Name": f"cloud-{n}", "ssh-host-key": HOST_KEY},
            )
            for n in range(1, 6)
        )
    }


@pytest.fixture(params=["small", "large"])
def stack(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Declared]:
    monkeypatch.setattr(cloud, "instances", _instances)
    config = {"small": small, "large": large}[request.param]()
    return request.param, run(config, name="golden", preview=False)


def golden(name: str) -> list[str]:
    return (GOLDEN / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def test_every_resource_that_states_know_is_declared_or_an_alias(stack: tuple[str, Declared]) -> None:
    """None of the golden URNs is lost: the engine would delete what stands behind it."""
    name, declared = stack
    known = {urn for new, old in declared.urns.items() for urn in (new, *old)}
    assert [urn for urn in golden(name) if urn not in known] == []


def test_every_resource_is_in_the_golden_list(stack: tuple[str, Declared]) -> None:
    """A new resource is a decision: it gets a line, so that it is kept from then on."""
    name, declared = stack
    assert sorted(set(declared.urns) - set(golden(name))) == []
