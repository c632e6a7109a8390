"""The pages for users of AWS, typed line by line against a server of the tests."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.aws_server import Aws, environment, moto_server
from tests.fleet.clones import PASSPHRASE, Clone, clone
from tests.infra.stacks import HOST_KEY, KEY, PROJECT, load, shipped
from tests.infra.test_ec2 import launch, subnets

pytestmark = [pytest.mark.engine]

NEXT = "hs_test_the_next_key"


def page(name: str) -> str:
    return (PROJECT / "docs" / "how-to" / f"{name}.md").read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """Blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", page(name), re.DOTALL)


@dataclass
class Reader:
    """Somebody who types what a page says, in one shell.

    Attributes:
        clone: where.
        variables: the shell's variables, which lines of the page may set.
    """

    clone: Clone
    variables: dict[str, str]

    def types(self, block: str) -> str:
        """Types the lines of a block, each of which must succeed; whatever asks for a key gets one."""
        return "".join(self._line(line) for line in block.splitlines() if line)

    def _line(self, line: str) -> str:
        saved = self.clone.folder.parent / "variables"
        done = subprocess.run(
            ["/bin/bash", "-c", f"set -ea\n{line}\nenv -0 >{shlex.quote(str(saved))}"],
            cwd=self.clone.folder,
            env=self.variables,
            input=KEY,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{line}: {done.returncode}\n{said[-3000:]}"
        assert KEY not in said
        self.variables = dict(entry.split("=", 1) for entry in saved.read_text().split("\0") if entry)
        return said


@pytest.fixture
def aws() -> Iterator[Aws]:
    with moto_server() as server:
        yield server


@pytest.fixture
def reader(aws: Aws, tmp_path: Path) -> Reader:
    """A new clone, with AWS's command line on PATH."""
    made = clone(tmp_path / "clone", state=tmp_path / "state", stack="live")
    program = tmp_path / "bin" / "aws"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={PROJECT} exec {sys.executable} -m tests.docs.aws_words "$@"\n'
    )
    program.chmod(0o755)
    variables = {**made.environment(), **environment(aws.url)}
    variables["PATH"] = f"{program.parent}:{variables['PATH']}"
    return Reader(made, variables)


def live(config: dict[str, object]) -> str:
    """A stack's file."""
    content = {"config": {f"fleet:{key}": value for key, value in config.items()}}
    return yaml.safe_dump(content, sort_keys=False)


def test_a_team_shares_a_stack_by_the_page(aws: Aws, reader: Reader) -> None:
    """Bucket, key, stack, another key, a lost key: every block in the order of the page, but for the one of moving."""
    make, begin, _, another, lost = blocks("shared-state", "sh")
    (reader.clone.folder / "Pulumi.live.yaml").write_text(live(shipped("production")))
    del reader.variables["PULUMI_CONFIG_PASSPHRASE"]
    reader.types(make)
    versioning = aws.client("s3").get_bucket_versioning(Bucket="acme-fleet-state")
    assert versioning["Status"] == "Enabled"
    said = reader.types(begin)
    assert "up still needs: hostKeys" in said
    assert "fleet:apiKey: no upstream key" not in said
    assert "awskms://alias/fleet?" in (reader.clone.folder / "Pulumi.live.yaml").read_text()
    created = aws.client("kms").create_key()["KeyMetadata"]["KeyId"]
    reader.variables["FLEET_KEY_2027"] = created
    with pytest.raises(AssertionError, match="error: no changes were expected"):
        reader.types(another)
    assert "awskms://alias/fleet-2027?" in (reader.clone.folder / "Pulumi.live.yaml").read_text()
    assert "claim-web-prod-01" in reader.types(lost)


def test_a_stack_moves_into_the_bucket_by_the_page(aws: Aws, reader: Reader) -> None:
    """A stack with a passphrase in a folder is taken along; its claims are the same ones."""
    make, _, move, *_ = blocks("shared-state", "sh")
    reader.types(make)
    reader.variables["PULUMI_CONFIG_PASSPHRASE"] = PASSPHRASE
    (reader.clone.folder / "Pulumi.old.yaml").write_text(live(_without_hosts()))
    reader.types("tools/env pulumi stack init old")
    reader.types("tools/env pulumi config set --secret apiKey --stack old")
    reader.types("tools/env pulumi up --yes --skip-preview --stack old")
    said = reader.types(move)
    assert "unchanged" in said
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
    tag, look, create, rotate = blocks("ec2", "sh")
    group, authority, secret = map(yaml.safe_load, blocks("ec2", "yaml"))
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
    group, authority, secret = map(yaml.safe_load, blocks("ec2", "yaml"))
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


def test_links_of_the_pages_lead_somewhere() -> None:
    """Every file that is linked exists."""
    for name in ("shared-state", "ec2"):
        for target in re.findall(r"\]\(([^)#]+)\)", page(name)):
            assert (PROJECT / "docs" / "how-to" / target).is_file(), target
