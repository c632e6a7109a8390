"""Clones whose environment leads to an account of the tests: hosts on EC2, state in S3, secrets under a KMS key."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.aws_server import REGION, Aws, environment
from tests.fleet.clones import Clone

BUCKET = "fleet-state"
SMALL_PROGRAM = """
import pulumi
from pulumi_command import local

config = pulumi.Config()
before = None
for name in ("first", "second", "third"):
    before = local.Command(
        name,
        create=config.get(name) or "exit 0",
        delete="exit 0",
        stdin=config.require_secret("key"),
        logging=local.Logging.NONE,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions(depends_on=[before] if before else None),
    )
pulumi.export("key", config.require_secret("key"))
"""


@dataclass
class CloudClone(Clone):
    """A clone whose environment leads to an account of the tests.

    Attributes:
        variables: what its environment has beside the caller's.
    """

    variables: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **self.variables}

    @contextmanager
    def started(self, *words: str) -> Iterator["subprocess.Popen[str]"]:
        """A command of the engine that goes on while the block does something else."""
        with subprocess.Popen(
            ["pulumi", *words, "--non-interactive"],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as engine:
            try:
                yield engine
            finally:
                engine.kill()


def small_project(folder: Path, stack: str, variables: dict[str, str]) -> CloudClone:
    """A program of three commands, one after another, which a test can make wait."""
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text("name: small\nruntime: python\n")
    (folder / "__main__.py").write_text(SMALL_PROGRAM)
    (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    return CloudClone(folder, folder, stack, variables=variables)


def backend(url: str) -> dict[str, str]:
    """Variables of a clone whose state is in the tests' bucket; there is no passphrase to fall back on."""
    return {
        **environment(url),
        "PULUMI_BACKEND_URL": f"s3://{BUCKET}?endpoint={url}&s3ForcePathStyle=true&region={REGION}",
        "PULUMI_CONFIG_PASSPHRASE": "",
    }


def provider(alias: str) -> str:
    """Secrets provider that is a KMS key."""
    return f"awskms://alias/{alias}?region={REGION}"


def furnish(aws: Aws, *aliases: str) -> None:
    """Makes the bucket and the keys."""
    aws.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    for alias in aliases:
        key = aws.client("kms").create_key()["KeyMetadata"]["KeyId"]
        aws.client("kms").create_alias(AliasName=f"alias/{alias}", TargetKeyId=key)


def stored(aws: Aws) -> dict[str, str]:
    """Every object in the bucket, by key."""
    client = aws.client("s3")
    listed = client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    return {
        entry["Key"]: client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"]
        .read()
        .decode(errors="replace")
        for entry in listed
    }


def resources(clone: Clone) -> list[str]:
    """Names of the commands in the stack's state."""
    deployment = json.loads(clone.pulumi("stack", "export", "--stack", clone.stack).output)["deployment"]
    held = deployment.get("resources") or []
    return sorted(r["urn"].rsplit("::", 1)[1] for r in held if r["type"] == "command:local:Command")
