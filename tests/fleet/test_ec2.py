"""A group on EC2 through the real engine. Only its claims are made, so that no host is ever contacted."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.aws_server import CREDENTIALS, Aws, environment, free_port, moto_server
from tests.fleet.clones import Run, clone
from tests.fleet.leaks import Watch, in_text
from tests.fleet.shared import CloudClone, resources
from tests.infra.hosts.test_ec2 import config, launch, subnets
from tests.infra.stacks import HOST_KEY, KEY

pytestmark = [pytest.mark.engine]

STACK = "ec2test"
COMPONENT = f"urn:pulumi:{STACK}::fleet::fleet:index:Deployment::deployment"
PARENT = f"urn:pulumi:{STACK}::fleet::fleet:index:Deployment$command:local:Command::"


def up_claims(fleet: CloudClone, *names: str) -> Run:
    """`up` of claims alone: they are made, changed or removed, and nothing is put on a host."""
    targets = [COMPONENT, *(f"{PARENT}claim-{name}" for name in names)]
    return fleet.up(*(word for target in targets for word in ("--target", target)))


def claims(fleet: CloudClone) -> set[str]:
    """Names of the claims in the state."""
    return {name.removeprefix("claim-") for name in resources(fleet)}


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with moto_server() as server:
        yield server


@pytest.fixture
def fleet(aws: Aws, tmp_path: Path) -> Iterator[CloudClone]:
    """A stack with a group on EC2, behind a jump host that is not there."""
    aws.empty()
    made = clone(tmp_path / "checkout", state=tmp_path / "state", stack=STACK)
    checkout = CloudClone(made.folder, made.state, made.stack, variables=environment(aws.url))
    content = config() | {"probe": False}
    content["jumpHosts"]["bastion"] |= {"address": "127.0.0.1", "port": free_port()}
    del content["groups"]["ai_batch_workers"]
    content["groups"]["production"]["children"] = ["ai_api_clients"]
    checkout.pulumi("stack", "init", STACK)
    checkout.configure(content)
    checkout.pulumi("config", "set", "--secret", "apiKey", "--stack", STACK, stdin=KEY)
    yield checkout
    shutil.rmtree(tmp_path, ignore_errors=True)


def pinned(aws: Aws, subnet: str, name: str) -> str:
    """Runs an instance whose host key is in its tag."""

    return launch(aws, subnet, name, **{"ssh-host-key": HOST_KEY})


def test_instances_that_come_and_go_show_as_hosts_added_and_removed(aws: Aws, fleet: CloudClone) -> None:
    """The preview names the host that would be claimed and the one that would be cleaned up."""
    held = subnets(aws)["a"]
    first, second = pinned(aws, held, "web-1"), pinned(aws, held, "web-2")
    up_claims(fleet, f"web-1-{first}", f"web-2-{second}")
    assert claims(fleet) == {f"web-1-{first}", f"web-2-{second}"}
    third = pinned(aws, held, "web-3")
    aws.client("ec2").create_tags(Resources=[second], Tags=[{"Key": "Role", "Value": "other"}])
    changed = fleet.preview().changed()
    assert changed[f"claim-web-3-{third}"] == "create"
    assert changed[f"claim-web-2-{second}"] == "delete"
    assert f"claim-web-1-{first}" not in changed


def test_more_removals_than_allowed_fail_preview_and_up(aws: Aws, fleet: CloudClone) -> None:
    """Three of four instances lose their tag: nothing is removed until the stack's file says that it is meant."""
    held = subnets(aws)["a"]
    ids = {name: pinned(aws, held, name) for name in ("web-1", "web-2", "web-3", "web-4")}
    names = [f"{name}-{held}" for name, held in ids.items()]
    up_claims(fleet, *names)
    lost = [ids[name] for name in ("web-2", "web-3", "web-4")]
    aws.client("ec2").create_tags(Resources=lost, Tags=[{"Key": "Role", "Value": "other"}])
    for refused in (
        fleet.pulumi("preview", "--stack", STACK, expect=None),
        fleet.up(expect=None),
    ):
        assert refused.status != 0
        assert (
            "fleet:maxRemovals: 3 hosts would be removed (web-2, web-3, web-4), but only 1 may be"
            in refused.output
        )
        assert "Traceback" not in refused.output
    assert claims(fleet) == set(names)
    fleet.pulumi("config", "set", "maxRemovals", "3", "--stack", STACK)
    assert sorted(fleet.preview().changed().values()).count("delete") == 3


def test_another_region_with_the_same_names_removes_nothing(aws: Aws, fleet: CloudClone) -> None:
    """A wrong region, whose instances have the very names: the old hosts are counted, and stay claimed."""
    held = subnets(aws)["a"]
    ids = {name: pinned(aws, held, name) for name in ("web-1", "web-2")}
    names = [f"{name}-{instance}" for name, instance in ids.items()]
    up_claims(fleet, *names)
    elsewhere = subnets(aws, region="us-east-1", network=30)["a"]
    for name in ids:
        launch(aws, elsewhere, name, region="us-east-1", **{"ssh-host-key": HOST_KEY})
    fleet.pulumi(
        *("config", "set", "--path", "groups.ai_api_clients.ec2.region", "us-east-1", "--stack", STACK)
    )
    for refused in (fleet.pulumi("preview", "--stack", STACK, expect=None), fleet.up(expect=None)):
        assert refused.status != 0
        assert "2 hosts would be removed (web-1, web-2), but only 1 may be" in refused.output
    assert claims(fleet) == set(names)


def test_an_answer_that_fails_or_is_empty_removes_nothing(aws: Aws, fleet: CloudClone) -> None:
    """AWS is away, then says that there is nothing: both end the program before any resource."""
    held = pinned(aws, subnets(aws)["a"], "web-1")
    up_claims(fleet, f"web-1-{held}")
    fleet.variables |= environment("http://127.0.0.1:9")
    away = fleet.up(expect=None)
    assert away.status != 0
    assert "ec2:DescribeInstances got no answer" in away.output
    fleet.variables |= environment(aws.url)
    aws.empty()
    empty = fleet.up(expect=None)
    assert empty.status != 0
    assert (
        "no instance matches its filters, which never means that all hosts should be removed" in empty.output
    )
    assert claims(fleet) == {f"web-1-{held}"}


def test_a_terminated_instance_leaves_state_without_contact(aws: Aws, fleet: CloudClone) -> None:
    """Its claim asks EC2 and is done: Ansible never starts, though the jump host on the way is not there.

    AWS's credentials reach the child that asks, and are in no argument and no file meanwhile.
    """
    held = subnets(aws)["a"]
    first, second = pinned(aws, held, "web-1"), pinned(aws, held, "web-2")
    up_claims(fleet, f"web-1-{first}", f"web-2-{second}")
    aws.client("ec2").terminate_instances(InstanceIds=[second])
    with Watch(CREDENTIALS["AWS_SECRET_ACCESS_KEY"], [fleet.folder, fleet.state]) as watch:
        up_claims(fleet, f"web-2-{second}")
    assert watch.hits == set()
    assert claims(fleet) == {f"web-1-{first}"}


def test_an_instance_that_took_the_place_of_another_is_another_host(aws: Aws, fleet: CloudClone) -> None:
    """Under the same name, the new instance gets its own claim, and the old one's is removed."""
    held = subnets(aws)["a"]
    old = pinned(aws, held, "web-1")
    up_claims(fleet, f"web-1-{old}")
    aws.client("ec2").terminate_instances(InstanceIds=[old])
    new = pinned(aws, held, "web-1")
    up_claims(fleet, f"web-1-{old}", f"web-1-{new}")
    assert claims(fleet) == {f"web-1-{new}"}


def test_destroy_keeps_a_claim_that_aws_says_nothing_of(aws: Aws, fleet: CloudClone) -> None:
    """While AWS is away no host is forgotten; once it says that the instance is gone, destroy ends."""
    held = pinned(aws, subnets(aws)["a"], "web-1")
    up_claims(fleet, f"web-1-{held}")
    fleet.variables |= environment("http://127.0.0.1:9")
    refused = fleet.pulumi("destroy", "--yes", "--skip-preview", "--json", expect=None)
    assert refused.status != 0
    assert "web-1: ec2:DescribeInstances got no answer" in refused.output
    assert claims(fleet) == {f"web-1-{held}"}
    fleet.variables |= environment(aws.url)
    aws.client("ec2").terminate_instances(InstanceIds=[held])
    fleet.pulumi("destroy", "--yes", "--skip-preview", "--json")
    assert claims(fleet) == set()
    said = "\n".join(fleet.outputs) + fleet.pulumi("stack", "export").output
    assert in_text(said, CREDENTIALS["AWS_SECRET_ACCESS_KEY"]) == []


def test_a_running_instance_is_contacted_before_it_is_forgotten(aws: Aws, fleet: CloudClone) -> None:
    """It is there, so it must be cleaned up: an unreachable one stays claimed."""
    held = pinned(aws, subnets(aws)["a"], "web-1")
    up_claims(fleet, f"web-1-{held}")
    refused = fleet.pulumi("destroy", "--yes", "--skip-preview", "--json", expect=None)
    assert refused.status != 0
    assert "web-1: unreachable" in refused.output
    assert claims(fleet) == {f"web-1-{held}"}
