"""The pages for users of AWS, typed line by line against a server of the tests."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml

from tests.aws_server import Aws, environment, moto_server
from tests.docs.conftest import NewClone
from tests.docs.pages import Walk, blocks, walk
from tests.docs.reader import Reader, new_reader
from tests.fleet.clones import PASSPHRASE
from tests.infra.hosts.test_ec2 import launch, subnets
from tests.infra.stacks import HOST_KEY, KEY, PROJECT, load, shipped

pytestmark = [pytest.mark.engine]

NEXT = "hs_test_the_next_key"


@pytest.fixture
def aws() -> Iterator[Aws]:
    with moto_server() as server:
        yield server


@pytest.fixture
def reader(aws: Aws, tmp_path: Path, new_clone: NewClone) -> Reader:
    """A new clone, with AWS's command line on PATH."""
    made = new_clone("live")
    program = tmp_path / "bin" / "aws"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={PROJECT} exec {sys.executable} -m tests.docs.aws_words "$@"\n'
    )
    program.chmod(0o755)
    reader = new_reader(made, tmp_path / "home", **environment(aws.url))
    reader.variables["PATH"] = f"{program.parent}:{reader.variables['PATH']}"
    return reader


def live(config: dict[str, object]) -> str:
    """A stack's file."""
    content = {"config": {f"fleet:{key}": value for key, value in config.items()}}
    return yaml.safe_dump(content, sort_keys=False)


def of_shared_state(section: str) -> AbstractContextManager[Walk]:
    """A section of the page on shared state."""
    return walk("docs/how-to/shared-state.md", section)


def test_a_team_shares_a_stack_by_the_page(aws: Aws, reader: Reader) -> None:
    """Bucket, key, stack, another key, a disabled and a lost key: every section but that of moving."""
    (reader.clone.folder / "Pulumi.live.yaml").write_text(live(shipped("production")))
    del reader.variables["PULUMI_CONFIG_PASSPHRASE"]
    with of_shared_state("1. Make a bucket and a key, once") as page:
        reader.types(page.take())
    versioning = aws.client("s3").get_bucket_versioning(Bucket="acme-fleet-state")
    assert versioning["Status"] == "Enabled"
    with of_shared_state("2. Make the stack there") as page:
        said = reader.types(page.take())
    assert "up still needs: hostKeys" in said
    assert "fleet:apiKey: no upstream key" not in said
    assert "awskms://alias/fleet?" in (reader.clone.folder / "Pulumi.live.yaml").read_text()
    reader.variables["FLEET_KEY_2027"] = aws.client("kms").create_key()["KeyMetadata"]["KeyId"]
    with (
        of_shared_state("Change the KMS key") as page,
        pytest.raises(AssertionError, match="error: no changes were expected"),
    ):
        reader.types(page.take())
    assert "awskms://alias/fleet-2027?" in (reader.clone.folder / "Pulumi.live.yaml").read_text()
    with of_shared_state("When something is wrong") as page:
        cancel, keep, enable, lost = (page.take() for _ in range(4))
    reader.types(cancel)
    aws.client("kms").schedule_key_deletion(KeyId=reader.variables["FLEET_KEY"])
    reader.types(keep)
    reader.types(enable)
    assert aws.client("kms").describe_key(KeyId=reader.variables["FLEET_KEY"])["KeyMetadata"]["Enabled"]
    assert "claim-web-prod-01" in reader.types(lost)


def test_a_stack_moves_into_the_bucket_by_the_page(aws: Aws, reader: Reader) -> None:
    """A stack with a passphrase in a folder is taken along; its claims are the same ones."""
    with of_shared_state("1. Make a bucket and a key, once") as page:
        reader.types(page.take())
    reader.variables["PULUMI_CONFIG_PASSPHRASE"] = PASSPHRASE
    (reader.clone.folder / "Pulumi.old.yaml").write_text(live(_without_hosts()))
    reader.types("tools/env pulumi stack init old")
    reader.types("tools/env pulumi config set --secret apiKey --stack old")
    reader.types("tools/env pulumi up --stack old")
    with of_shared_state("Move an existing stack") as page:
        assert "unchanged" in reader.types(page.take())
    assert "old" in reader.types("tools/env pulumi stack ls")
    assert any(key["Key"].endswith("/old.json") for key in _objects(aws))


def _without_hosts() -> dict[str, object]:
    """A stack that can be up without a host: its only group is on EC2, and may be empty."""
    group = {
        "source": "ec2",
        "ec2": {"filters": {"tag:Role": ["nobody"]}, "region": "eu-central-1", "allowEmpty": True},
    }
    return {"environment": "production", "groups": {"ai_api_clients": group}}


def _objects(aws: Aws) -> list[dict[str, str]]:
    return list(aws.client("s3").list_objects_v2(Bucket="acme-fleet-state")["Contents"])


def test_instances_become_hosts_by_the_page(aws: Aws, reader: Reader) -> None:
    """The page's group, a tag for the host key, the key in Secrets Manager, and a rotation step by step."""
    with walk("docs/how-to/ec2.md") as page:
        tag, look, create, rotate = (page.take() for _ in range(4))
    group, authority, secret = map(yaml.safe_load, blocks("docs/how-to/ec2.md", "yaml"))
    held = launch(aws, subnets(aws)["a"], "Web 1", Role="ai-api")
    content = {key.removeprefix("fleet:"): value for part in (group, secret) for key, value in part.items()}
    del content["groups"]["ai_api_clients"]["ec2"]["vpcId"]
    content["jumpHosts"]["bastion"]["hostKeys"] = [HOST_KEY]
    content |= {"environment": "production", "probe": False}
    (reader.clone.folder / "Pulumi.live.yaml").write_text(live(content))
    reader.types("tools/env pulumi stack init live")
    reader.variables |= {"UPSTREAM_KEY": KEY, "NEXT_UPSTREAM_KEY": NEXT}
    reader.types(create)
    assert "no pinned host key for web-1" in reader.types(look)
    reader.types(tag.replace("i-0123456789abcdef0", held))
    said = reader.types(look)
    assert f"claim-web-1-{held}" in said
    assert "up still needs" not in said
    reader.types(rotate)
    client = aws.client("secretsmanager")
    current = client.get_secret_value(SecretId="fleet/live/upstream-key", VersionStage="AWSCURRENT")
    assert current["SecretString"] == NEXT
    stages = client.describe_secret(SecretId="fleet/live/upstream-key")["VersionIdsToStages"]
    assert "AWSPREVIOUS" not in str(stages)
    assert list(authority["fleet:ssh"]) == ["certificateAuthority"]


def test_the_groups_of_the_page_are_accepted() -> None:
    """What a reader copies is valid as it stands, but for the keys that only its owner knows."""
    group, authority, secret = map(yaml.safe_load, blocks("docs/how-to/ec2.md", "yaml"))
    content = {
        key.removeprefix("fleet:"): value
        for part in (group, authority, secret)
        for key, value in part.items()
    }
    content["jumpHosts"]["bastion"]["hostKeys"] = [HOST_KEY]
    content["ssh"]["certificateAuthority"] = [HOST_KEY]
    loaded = load(content | {"environment": "production"}, secret=())
    assert loaded.groups["ai_api_clients"].ec2 is not None
    assert loaded.api_key_secret is not None
