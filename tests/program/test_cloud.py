"""The program with its hosts and its key at AWS, under Pulumi's mocks."""

import json
from typing import Any

import pulumi
import pytest

from tests.aws_server import ACCOUNT, CREDENTIALS, REGION, Aws
from tests.infra.hosts.test_ec2 import config, launch, subnets
from tests.infra.stacks import HOST_KEY, KEY
from tests.program.stand import Declared, run

pytestmark = pytest.mark.slow

NAME = "upstream-key"


@pytest.fixture
def account(account: Aws) -> Aws:
    """An account that keeps the upstream's key."""
    account.client("secretsmanager").create_secret(Name=NAME, SecretString=KEY)
    return account


def stack() -> dict[str, Any]:
    """A group on EC2 and a key in Secrets Manager; the hosts are not looked at."""
    content = config() | {"probe": False, "apiKeySecret": {"secretId": NAME, "region": REGION}}
    del content["groups"]["ai_batch_workers"]
    content["groups"]["production"]["children"] = ["ai_api_clients"]
    return content


def declared() -> Declared:
    return run(stack(), name="production", preview=False)


def claims(of: Declared) -> dict[str, dict[str, Any]]:
    return {name: inputs for name, inputs in of.commands.items() if name.startswith("claim-")}


def test_a_claim_knows_its_instance_and_asks_aws_before_it_cleans_up(account: Aws) -> None:
    """Id, region and account are in the claim's order, and nothing of the credentials."""
    held = launch(account, subnets(account)["a"], "web-1", **{"ssh-host-key": HOST_KEY})
    ((name, claim),) = claims(declared()).items()
    assert name == f"claim-web-1-{held}"
    order = json.loads(claim["stdin"])
    assert order["instance"] == {"id": held, "region": REGION, "account": ACCOUNT, "role_arn": ""}
    assert "|AWS_)')" in claim["delete"]
    assert not any(value in json.dumps(claim) for value in CREDENTIALS.values())
    assert account.url not in json.dumps(claim)


def test_instances_that_changed_are_hosts_added_and_removed(account: Aws) -> None:
    """The next run declares what is there now."""
    held = subnets(account)["a"]
    ids = [launch(account, held, f"web-{n}", **{"ssh-host-key": HOST_KEY}) for n in (1, 2)]
    assert set(claims(declared())) == {f"claim-web-{n}-{ids[n - 1]}" for n in (1, 2)}
    account.client("ec2").terminate_instances(InstanceIds=ids[:1])
    third = launch(account, held, "web-3", **{"ssh-host-key": HOST_KEY})
    assert set(claims(declared())) == {f"claim-web-2-{ids[1]}", f"claim-web-3-{third}"}


def test_a_stopped_instance_is_claimed_and_not_deployed(account: Aws) -> None:
    """It keeps what it has until it runs again; the plan says why."""
    held = subnets(account)["a"]
    stopped = launch(account, held, "web-1", **{"ssh-host-key": HOST_KEY})
    launch(account, held, "web-2", **{"ssh-host-key": HOST_KEY})
    account.client("ec2").stop_instances(InstanceIds=[stopped])
    made = declared()
    assert f"claim-web-1-{stopped}" in made.commands
    waves = [i["environment"]["HOSTS"] for i in made.commands.values() if "HOSTS" in i["environment"]]
    assert waves == ["web-2"]
    assert made.outputs["plan"]["web-1"] == {"state": "away", "message": f"instance {stopped} is stopped"}


def test_an_instance_without_a_host_key_is_a_named_blocker(account: Aws) -> None:
    """A preview lists it, `up` refuses: nobody is trusted on first use. A certificate authority is a pin, too."""
    launch(account, subnets(account)["a"], "web-1")
    preview = run(stack(), name="production", preview=True)
    assert any("hostKeys: no pinned host key for web-1" in warning for warning in preview.warnings)
    with pytest.raises(pulumi.RunError, match="hostKeys: no pinned host key for web-1"):
        declared()
    certified = run(stack() | {"ssh": {"certificateAuthority": [HOST_KEY]}}, name="production", preview=False)
    assert certified.outputs["ssh"]["knownHosts"] == f"bastion {HOST_KEY}\n@cert-authority web-1 {HOST_KEY}\n"


def test_the_key_of_secrets_manager_is_as_secret_as_one_of_the_configuration(account: Aws) -> None:
    """It is in the secret standard input of a deploy, and nowhere else."""
    launch(account, subnets(account)["a"], "web-1", **{"ssh-host-key": HOST_KEY})
    made = declared()
    held = made.commands["ai_api_clients-1"]["stdin"]
    assert KEY in held["secret"]
    made.commands["ai_api_clients-1"].pop("stdin")
    assert KEY not in json.dumps(made.commands) + json.dumps(made.outputs) + str(made.warnings)


def test_an_empty_answer_ends_the_program_before_any_resource(account: Aws) -> None:
    """One line without a traceback, and nothing declared: nothing is removed."""
    with pytest.raises(pulumi.RunError, match=r"^fleet:groups\.ai_api_clients\.ec2: no instance matches"):
        run(stack(), name="production", preview=True)
