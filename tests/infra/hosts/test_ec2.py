import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from infra.errors import NodeSourceError, SettingsError
from infra.hosts import cloud, ec2, fleet
from infra.hosts.model import CloudInstance, Fleet
from tests.aws_server import (
    ACCOUNT,
    REGION,
    Aws,
    ec2_failure,
    proxy_before,
)
from tests.infra.stacks import HOST_KEY, load, shipped

pytestmark = pytest.mark.slow

MANY = 430
GROUP = "fleet:groups.ai_api_clients.ec2"


def subnets(aws: Aws, *, region: str = REGION, network: int = 20) -> dict[str, str]:
    """A VPC with a subnet in two zones: subnet id by zone, and the VPC's own id."""
    client = aws.client("ec2", region)
    vpc = client.create_vpc(CidrBlock=f"10.{network}.0.0/16")["Vpc"]["VpcId"]
    made = {
        zone: client.create_subnet(
            VpcId=vpc, CidrBlock=f"10.{network}.{16 * index}.0/20", AvailabilityZone=f"{region}{zone}"
        )["Subnet"]["SubnetId"]
        for index, zone in enumerate("ab")
    }
    return {**made, "vpc": vpc}


def launch(aws: Aws, subnet: str, name: str, *, region: str = REGION, **tags: str) -> str:
    """Runs an instance and answers its id."""
    held = {"Role": "api", **tags} | ({"Name": name} if name else {})
    answer = aws.client("ec2", region).run_instances(
        ImageId="ami-03cf127a",
        MinCount=1,
        MaxCount=1,
        SubnetId=subnet,
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": k, "Value": v} for k, v in held.items()]}
        ],
    )
    return str(answer["Instances"][0]["InstanceId"])


def config(**chosen: Any) -> dict[str, Any]:
    """Production with its API clients on EC2."""
    content = shipped("production")
    group = content["groups"]["ai_api_clients"]
    del group["hosts"]
    group |= {
        "source": "ec2",
        "jump": ["bastion"],
        "ec2": {"filters": {"tag:Role": ["api"]}, "region": REGION} | chosen,
    }
    content["jumpHosts"] = {"bastion": {"address": "203.0.113.7", "hostKeys": [HOST_KEY]}}
    return content


def found(**chosen: Any) -> Fleet:
    """The fleet as the program finds it."""
    settings = load(config(**chosen))
    return fleet.build(settings, cloud.instances(settings))


def names(declared: Fleet) -> list[str]:
    return [node.name for node in declared.targets if node.instance]


def test_hundreds_of_instances_over_several_pages_are_all_found(
    account: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every page is read; each host has its private address, zone, jump host, and the key of its tag."""
    held = subnets(account)
    for number in range(MANY):
        launch(
            account, held["ab"[number % 2]], f"API {number:03}", **{"ssh-host-key": f"{HOST_KEY} root@api"}
        )
    with proxy_before(account) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        declared = found()
    assert proxy.asked("DescribeInstances") == 3
    assert names(declared) == [f"api-{number:03}" for number in range(MANY)]
    first, second = declared.targets[:2]
    assert (first.address, second.address) == ("10.20.0.4", "10.20.16.4")
    assert (first.zone, second.zone) == (f"{REGION}a", f"{REGION}b")
    assert first.jump == ("bastion",)
    assert first.user == "deploy"
    assert first.host_keys == (HOST_KEY,)
    assert first.instance is not None
    assert (first.instance.region, first.instance.account) == (REGION, ACCOUNT)


def test_tags_zone_and_network_choose_the_instances(account: Aws) -> None:
    """An instance has to pass every filter of its group."""
    held, other = subnets(account), subnets(account, network=21)
    launch(account, held["a"], "wanted")
    launch(account, held["b"], "other-zone")
    launch(account, other["a"], "other-network")
    launch(account, held["a"], "other-role", Role="batch")
    assert names(found(vpcId=held["vpc"], zones=[f"{REGION}a"])) == ["wanted"]
    assert names(found(vpcId=held["vpc"])) == ["other-zone", "wanted"]
    assert names(found(filters={"tag:Role": ["batch", "api"]}, vpcId=held["vpc"], zones=[f"{REGION}a"])) == [
        "other-role",
        "wanted",
    ]


def test_the_region_may_come_from_the_environment(account: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a declared region the ordinary chain gives it, and the claim remembers which one it was."""
    launch(account, subnets(account, region="eu-west-1")["a"], "irish", region="eu-west-1")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    (node,) = [node for node in found(region=None).targets if node.instance]
    assert node.instance is not None
    assert node.instance.region == "eu-west-1"


def test_a_role_is_taken_on_first(account: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """`roleArn` reaches instances of another account."""
    role = account.client("iam").create_role(RoleName="reader", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    launch(account, subnets(account)["a"], "there")
    with proxy_before(account) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        (node,) = [node for node in found(roleArn=role).targets if node.instance]
    assert proxy.asked("AssumeRole") == 1
    assert node.instance is not None
    assert node.instance.role_arn == role


def test_a_stopped_instance_keeps_its_claim_and_is_away(account: Aws) -> None:
    """A stopped host is not a removed one; a terminated one is no host any more."""
    held = subnets(account)
    stopped, terminated = launch(account, held["a"], "stopped"), launch(account, held["a"], "terminated")
    launch(account, held["a"], "running")
    account.client("ec2").stop_instances(InstanceIds=[stopped])
    account.client("ec2").terminate_instances(InstanceIds=[terminated])
    declared = found()
    assert names(declared) == ["running", "stopped"]
    assert [node.away for node in declared.targets if node.instance] == ["", f"instance {stopped} is stopped"]
    assert names(found(states=["running"])) == ["running"]


def test_an_empty_answer_is_refused_unless_it_is_allowed(account: Aws) -> None:
    """No instance never means: remove every host."""
    with pytest.raises(NodeSourceError, match=r"no instance matches its filters.*allowEmpty: true") as raised:
        found()
    assert raised.value.culprit == GROUP
    assert names(found(allowEmpty=True)) == []


def test_a_group_whose_instances_are_all_terminated_counts_as_empty(account: Aws) -> None:
    """A mass termination stops the program, too, until the user says that it is meant."""
    gone = launch(account, subnets(account)["a"], "gone")
    account.client("ec2").terminate_instances(InstanceIds=[gone])
    with pytest.raises(NodeSourceError, match="no instance matches its filters"):
        found()


def test_two_instances_of_one_name_are_refused(account: Aws) -> None:
    """A name that depended on who else is there would wander from host to host."""
    held = subnets(account)
    pair = sorted(launch(account, held["a"], "web") for _ in range(2))
    with pytest.raises(NodeSourceError, match=r'have one name; .*nameTag: ""') as raised:
        found()
    assert all(name in raised.value.reason for name in pair)
    assert names(found(nameTag="")) == pair


def test_an_instance_in_two_groups_is_refused(account: Aws) -> None:
    """A host has one group."""
    launch(account, subnets(account)["a"], "web")
    content = config()
    batch = content["groups"]["ai_batch_workers"]
    del batch["hosts"]
    batch |= {"source": "ec2", "ec2": {"filters": {"tag:Role": ["api"]}, "region": REGION, "nameTag": ""}}
    settings = load(content)
    with pytest.raises(NodeSourceError, match=r"has the address 10\.20\.0\.4:22, as web .* has"):
        fleet.build(settings, cloud.instances(settings))


def test_a_name_that_a_declared_host_has_is_refused(account: Aws) -> None:
    """Names are unique in the stack, wherever its hosts come from."""
    launch(account, subnets(account)["a"], "batch-worker-01")
    with pytest.raises(NodeSourceError, match="has the name batch-worker-01, as"):
        found()


def test_a_tag_that_is_no_host_key_is_refused(account: Aws) -> None:
    """A damaged pin is an error, never no pin."""
    held = launch(account, subnets(account)["a"], "web", **{"ssh-host-key": "SHA256:abc"})
    with pytest.raises(NodeSourceError, match="its tag ssh-host-key is not a public host key") as raised:
        found()
    assert held in raised.value.culprit


def test_declared_host_keys_come_before_the_tag(account: Aws) -> None:
    """Tags may be written by more people than the stack's file: what the file says counts."""
    other = HOST_KEY[:-4] + "AAAA"
    held = launch(account, subnets(account)["a"], "web", **{"ssh-host-key": other})
    assert found().targets[0].host_keys == (other,)
    assert found(hostKeys={"web": [HOST_KEY]}).targets[0].host_keys == (HOST_KEY,)
    assert found(hostKeys={held: [HOST_KEY]}).targets[0].host_keys == (HOST_KEY,)


RAW = {
    "InstanceId": "i-0abc",
    "State": {"Name": "running"},
    "Placement": {"AvailabilityZone": "eu-central-1a"},
}


def decided(*raw: dict[str, Any], **chosen: Any) -> list[str]:
    """Names of the hosts of a group, from an answer written by hand."""
    settings = load(config(**chosen))
    answer = ec2.instances([{"OwnerId": ACCOUNT, "Instances": list(raw)}], region=REGION)
    group = settings.groups["ai_api_clients"]
    return [node.name for node in ec2.nodes(settings, "ai_api_clients", group, answer)]


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("Web Prod 01", "web-prod-01"),
        ("web_prod.01", "web-prod-01"),
        ("-- web --", "web"),
        ("Überwachung", "berwachung"),
        ("日本", "i-0abc"),
        ("", "i-0abc"),
        ("x" * 80, "x" * 63),
        ("x" * 62 + "-" + "y" * 9, "x" * 62),
        ("$(reboot); -oProxyCommand=x", "reboot-oproxycommand-x"),
    ],
)
def test_a_name_tag_becomes_a_name_that_an_inventory_can_hold(tag: str, name: str) -> None:
    """Lower-case letters, digits and hyphens; the instance id where nothing is left."""
    assert decided({**RAW, "PrivateIpAddress": "10.0.0.1", "Tags": [{"Key": "Name", "Value": tag}]}) == [name]
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name)


def test_an_instance_without_an_address_is_an_error() -> None:
    """It can't be reached, and must not be taken for removed."""
    with pytest.raises(NodeSourceError, match="is running and has no private address"):
        decided(RAW)


def test_an_instance_that_is_being_born_joins_later() -> None:
    """Before it has an address a new instance is no host yet; alone, it leaves the group empty."""
    unborn = {**RAW, "InstanceId": "i-0new", "State": {"Name": "pending"}}
    assert decided({**RAW, "PrivateIpAddress": "10.0.0.1"}, unborn) == ["i-0abc"]
    with pytest.raises(NodeSourceError, match="no instance matches its filters"):
        decided(unborn)


def test_an_instance_with_ipv6_alone_has_that_address() -> None:
    """Subnets may have no IPv4."""
    settings = load(config())
    answer = ec2.instances(
        [{"OwnerId": ACCOUNT, "Instances": [{**RAW, "Ipv6Address": "2001:db8::1"}]}], region=REGION
    )
    (node,) = ec2.nodes(settings, "ai_api_clients", settings.groups["ai_api_clients"], answer)
    assert node.address == "2001:db8::1"


def test_an_instance_seen_on_two_pages_is_one_host() -> None:
    """While instances come and go, AWS may answer one twice."""
    once = {**RAW, "PrivateIpAddress": "10.0.0.1"}
    assert decided(once, once) == ["i-0abc"]


def test_a_failure_on_the_last_page_fails_the_whole_answer(
    account: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Part of an answer is no answer: the hosts on the pages that are missing are not removed."""
    held = subnets(account)
    for number in range(201):
        launch(account, held["a"], f"api-{number}")
    with proxy_before(account) as proxy:
        proxy.decide = lambda body: (
            ec2_failure("UnauthorizedOperation", status=403) if "NextToken" in body else None
        )
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with pytest.raises(
            NodeSourceError, match=r"UnauthorizedOperation.*allow ec2:DescribeInstances to the identity"
        ):
            found()
    assert proxy.asked("DescribeInstances") == 2


def test_throttling_is_waited_out(account: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy API is asked again, within bounds."""
    launch(account, subnets(account)["a"], "web")
    with proxy_before(account) as proxy:
        proxy.decide = lambda body: (
            ec2_failure("RequestLimitExceeded", status=503) if len(proxy.bodies) <= 2 else None
        )
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        assert names(found()) == ["web"]
    assert proxy.asked("DescribeInstances") == 3


def test_throttling_without_end_is_an_error(account: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five attempts, then a clear error."""
    with proxy_before(account) as proxy:
        proxy.decide = lambda body: ec2_failure("RequestLimitExceeded", status=503)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with pytest.raises(NodeSourceError, match=r"RequestLimitExceeded.*run it again in a minute"):
            found()
    assert proxy.asked("DescribeInstances") == 5


def test_an_endpoint_that_is_gone_is_an_error_within_bounds(
    account: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens: one error that says so, soon."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(NodeSourceError, match=r"got no answer.*check the network") as raised:
        found()
    assert time.monotonic() - started < 60
    assert raised.value.culprit == GROUP


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "there are no AWS credentials; set AWS_PROFILE"),
        (("AWS_REGION",), "no AWS region is set; write region"),
    ],
)
def test_what_the_environment_lacks_is_named(
    account: Aws, monkeypatch: pytest.MonkeyPatch, lacking: tuple[str, ...], said: str
) -> None:
    """Without credentials or region the error says where they come from."""
    for name in lacking:
        monkeypatch.delenv(name)
    with pytest.raises(NodeSourceError, match=said):
        found(region=None if lacking == ("AWS_REGION",) else REGION)


def test_an_unknown_profile_is_named(account: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt AWS_PROFILE is not a traceback."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(NodeSourceError, match="nobody"):
        found()


@pytest.mark.parametrize(
    ("change", "culprit", "said"),
    [
        ({"filters": {}}, f"{GROUP}.filters", "at least 1 item"),
        ({"regoin": "x"}, f"{GROUP}.regoin", "did you mean 'region'?"),
        ({"region": "Frankfurt"}, f"{GROUP}.region", "a region such as"),
        ({"roleArn": "reader"}, f"{GROUP}.roleArn", "an ARN such as"),
        ({"states": ["terminated"]}, f"{GROUP}.states.0", "'pending', 'running'"),
        (
            {"filters": {"instance-state-name": ["running"]}},
            f"{GROUP}.filters.instance-state-name",
            "use ec2.states",
        ),
    ],
)
def test_a_wrong_choice_is_answered_with_its_key(change: dict[str, Any], culprit: str, said: str) -> None:
    """What is wrong below `ec2:` is named before AWS is asked."""
    with pytest.raises(SettingsError) as raised:
        load(config(**change))
    assert raised.value.culprit == culprit
    assert said in str(raised.value)


def test_a_group_has_one_source() -> None:
    """`ec2` and `hosts` in one group, `ec2` without its source, the source without `ec2`: each is an error."""
    content = config()
    content["groups"]["ai_api_clients"]["hosts"] = {"web": {"address": "10.0.0.1"}}
    with pytest.raises(SettingsError, match="the hosts of this group come from EC2"):
        load(content)
    content = config()
    content["groups"]["ai_api_clients"]["source"] = "static"
    with pytest.raises(SettingsError, match="has no effect with source: static"):
        load(content)
    content = config()
    del content["groups"]["ai_api_clients"]["ec2"]
    with pytest.raises(SettingsError, match=r"ai_api_clients\.ec2: is missing"):
        load(content)


def claimed(aws: Aws, name: str) -> tuple[str, CloudInstance]:
    """A running instance, and what its claim remembers."""
    held = launch(aws, subnets(aws)["a"], name)
    return held, CloudInstance(id=held, region=REGION, account=ACCOUNT)


def test_a_running_instance_is_to_be_cleaned_up(account: Aws) -> None:
    """It is there: nothing is forgotten."""
    _, instance = claimed(account, "web")
    assert cloud.fate("web", instance) == ""


def test_a_terminated_instance_is_forgotten(account: Aws) -> None:
    """There is nothing left to clean up."""
    held, instance = claimed(account, "web")
    account.client("ec2").terminate_instances(InstanceIds=[held])
    assert cloud.fate("web", instance) == f"instance {held} is terminated"


def test_an_instance_that_its_own_account_does_not_know_is_forgotten(account: Aws) -> None:
    """An hour after its end AWS does not know an instance any more."""
    unknown = CloudInstance(id="i-0123456789abcdef0", region=REGION, account=ACCOUNT)
    assert cloud.fate("web", unknown) == "instance i-0123456789abcdef0 is no longer there"


def test_an_instance_that_another_account_does_not_know_is_not_forgotten(account: Aws) -> None:
    """With credentials of a wrong account no instance is known: that says nothing."""
    foreign = CloudInstance(id="i-0123456789abcdef0", region=REGION, account="999999999999")
    with pytest.raises(NodeSourceError, match="is of account 999999999999, and 123456789012 was asked"):
        cloud.fate("web", foreign)


def test_a_stopped_instance_is_neither_cleaned_up_nor_forgotten(account: Aws) -> None:
    """The key is on its disk."""
    held, instance = claimed(account, "web")
    account.client("ec2").stop_instances(InstanceIds=[held])
    with pytest.raises(
        NodeSourceError, match="is stopped, so key and service can't be removed from it; start it"
    ):
        cloud.fate("web", instance)


def test_a_failing_api_is_an_error_and_never_the_end_of_a_host(
    account: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Denied is not gone."""
    _, instance = claimed(account, "web")
    with proxy_before(account) as proxy:
        proxy.decide = lambda body: ec2_failure("UnauthorizedOperation", status=403)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with pytest.raises(NodeSourceError, match="UnauthorizedOperation"):
            cloud.fate("web", instance)


def test_credentials_come_through_an_open_file_and_do_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While AWS is asked its variables are there; Ansible, which runs afterwards, does not get them."""
    monkeypatch.setenv("AWS_REGION", "before")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    path = tmp_path / "given"
    path.write_text("AWS_SECRET_ACCESS_KEY=a=b c\nAWS_REGION=given\nnot AWS\n")
    with cloud.credentials_from(os.open(path, os.O_RDONLY)):
        assert (os.environ["AWS_SECRET_ACCESS_KEY"], os.environ["AWS_REGION"]) == ("a=b c", "given")
    assert "AWS_SECRET_ACCESS_KEY" not in os.environ
    assert os.environ["AWS_REGION"] == "before"
