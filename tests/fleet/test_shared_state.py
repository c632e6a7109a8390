"""State in an S3 bucket and secrets under a KMS key, as a team on AWS has them, through the real engine."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.aws_server import AWAY, Aws, Failure, Proxy, kms_failure, moto_server, proxy_before
from tests.fleet.clones import clone
from tests.fleet.leaks import in_text
from tests.fleet.shared import (
    CloudClone,
    backend,
    furnish,
    provider,
    resources,
    small_project,
    stored,
)
from tests.infra.hosts.test_ec2 import config, launch, subnets
from tests.infra.stacks import HOST_KEY, KEY

pytestmark = [pytest.mark.engine]

SECRET = "hs_test_canary_of_the_shared_state"
STATE = ".pulumi/stacks/small/team.json"
ALL = ["first", "second", "third"]


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with moto_server() as server:
        yield server


@pytest.fixture
def proxy(aws: Aws) -> Iterator[Proxy]:
    """What stands between the engine and AWS."""
    aws.empty()
    furnish(aws, "state", "next")
    with proxy_before(aws) as made:
        yield made


@pytest.fixture
def team(proxy: Proxy, tmp_path: Path) -> CloudClone:
    """A stack in the bucket, with one secret, not yet up."""
    checkout = small_project(tmp_path / "first", "team", backend(proxy.url))
    checkout.pulumi("stack", "init", "team", "--secrets-provider", provider("state"))
    checkout.pulumi("config", "set", "--secret", "key", "--stack", "team", stdin=SECRET)
    return checkout


def up(team: CloudClone, *, expect: int | None = 0) -> str:
    return team.pulumi("up", "--yes", "--skip-preview", "--stack", "team", expect=expect).output


def preview(team: CloudClone, *words: str, expect: int | None = 0) -> str:
    return team.pulumi("preview", "--stack", "team", *words, expect=expect).output


class Gate:
    """Makes a command wait in the middle of an `up`, until the test lets it go on."""

    def __init__(self, folder: Path) -> None:
        self._reached, self._pipe = folder / "reached", folder / "pipe"
        os.mkfifo(self._pipe)
        # Open in both directions: writing never waits for the command, and what is written stays for it.
        self._end = os.open(self._pipe, os.O_RDWR)

    @property
    def command(self) -> str:
        return f"touch {self._reached}; read go <{self._pipe}"

    def wait(self, within_s: float = 60) -> None:
        """Until the command runs."""
        deadline = time.monotonic() + within_s
        while not self._reached.exists():
            assert time.monotonic() < deadline, "the command did not start in time"
            time.sleep(0.05)

    def open(self) -> None:
        """Lets the command end."""
        os.write(self._end, b"go\n")

    def close(self) -> None:
        """Ends a command that still waits."""
        self.open()
        os.close(self._end)


@pytest.fixture
def gate(team: CloudClone, tmp_path: Path) -> Iterator[Gate]:
    """A gate in the second of the stack's three commands."""
    made = Gate(tmp_path)
    team.pulumi("config", "set", "second", made.command, "--stack", "team")
    yield made
    made.close()


def open_gate(team: CloudClone) -> None:
    """Takes the gate out of the program."""
    team.pulumi("config", "set", "second", "exit 0", "--stack", "team")


def test_a_stack_lives_in_the_bucket_and_its_secrets_under_the_key(
    aws: Aws, team: CloudClone, tmp_path: Path
) -> None:
    """A colleague's clone needs the stack's file alone: it sees no change, reads the secret, and can destroy."""
    up(team)
    assert resources(team) == ALL
    objects = stored(aws)
    assert STATE in objects
    assert [key for key, text in objects.items() if in_text(text, SECRET)] == []
    assert in_text((team.folder / "Pulumi.team.yaml").read_text() + "".join(team.outputs), SECRET) == []
    second = small_project(tmp_path / "elsewhere", "team", team.variables)
    shutil.copy2(team.folder / "Pulumi.team.yaml", second.folder)
    preview(second, "--expect-no-changes")
    shown = second.pulumi("stack", "output", "key", "--show-secrets", "--stack", "team")
    assert shown.output.strip() == SECRET
    second.pulumi("destroy", "--yes", "--skip-preview", "--stack", "team")
    second.pulumi("stack", "rm", "--yes", "--stack", "team")
    assert STATE not in stored(aws)


def test_of_two_ups_at_once_the_second_is_told_who_holds_the_stack(team: CloudClone, gate: Gate) -> None:
    """The one that came first goes on undisturbed."""
    with team.started("up", "--yes", "--skip-preview", "--stack", "team") as first:
        gate.wait()
        refused = up(team, expect=None)
        assert "the stack is currently locked by 1 lock(s)" in refused
        assert f"(pid {first.pid})" in refused
        assert "pulumi cancel" in refused
        gate.open()
        assert first.wait(60) == 0
    assert resources(team) == ALL


def test_another_key_takes_over_without_a_change(aws: Aws, team: CloudClone) -> None:
    """`change-secrets-provider` seals configuration and state anew; no resource changes, no secret shows."""
    up(team)
    team.pulumi("stack", "change-secrets-provider", provider("next"), "--stack", "team")
    sealed = json.loads(stored(aws)[STATE])["checkpoint"]["latest"]["secrets_providers"]
    assert "alias/next" in json.dumps(sealed)
    assert "alias/next" in (team.folder / "Pulumi.team.yaml").read_text()
    preview(team, "--expect-no-changes")
    assert [key for key, text in stored(aws).items() if in_text(text, SECRET)] == []


def _same(before: dict[str, str], after: dict[str, str]) -> bool:
    return before == {key: text for key, text in after.items() if "/locks/" not in key}


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (kms_failure("AccessDeniedException"), "AccessDeniedException"),
        (kms_failure("DisabledException"), "DisabledException"),
        (kms_failure("NotFoundException"), "NotFoundException"),
        (AWAY, "exceeded maximum number of attempts"),
    ],
    ids=["denied", "disabled", "lost", "away"],
)
def test_without_its_key_a_stack_is_neither_read_nor_changed(
    aws: Aws, team: CloudClone, failure: Failure, said: str
) -> None:
    """The error names KMS and its reason. The state stays as it is, and with the key back nothing is to be done."""
    up(team)
    before = stored(aws)
    with proxy_before(aws) as kms:
        kms.decide = lambda body: failure
        team.variables["AWS_ENDPOINT_URL_KMS"] = kms.url
        for refused in (preview(team, expect=None), up(team, expect=None)):
            assert "get stack secrets manager" in refused
            assert "operation error KMS: Decrypt" in refused
            assert said in refused
    del team.variables["AWS_ENDPOINT_URL_KMS"]
    assert _same(before, stored(aws))
    preview(team, "--expect-no-changes")


def test_a_key_that_is_gone_for_good_takes_the_record_and_not_the_name(aws: Aws, team: CloudClone) -> None:
    """Without the key the record can still be dropped, and one of the same name begun under another key."""
    up(team)
    with proxy_before(aws) as kms:
        kms.decide = lambda body: kms_failure("NotFoundException")
        team.variables["AWS_ENDPOINT_URL_KMS"] = kms.url
        team.pulumi("stack", "rm", "team", "--force", "--yes", "--preserve-config")
    del team.variables["AWS_ENDPOINT_URL_KMS"]
    team.pulumi("stack", "init", "team", "--secrets-provider", provider("next"))
    team.pulumi("config", "set", "--secret", "key", "--stack", "team", stdin=SECRET)
    assert "+ 4 created" in up(team)
    assert resources(team) == ALL


def test_a_lost_state_comes_back_from_an_export(aws: Aws, team: CloudClone) -> None:
    """The object is deleted by mistake: with an export of it nothing is made a second time."""
    up(team)
    exported = team.pulumi("stack", "export", "--stack", "team").output
    assert in_text(exported, SECRET) == []
    for key in (STATE, f"{STATE}.bak"):
        aws.client("s3").delete_object(Bucket="fleet-state", Key=key)
    assert "no stack named 'team' found" in preview(team, expect=None)
    settings = (team.folder / "Pulumi.team.yaml").read_text()
    team.pulumi("stack", "init", "team", "--secrets-provider", provider("state"))
    # A new stack gets a new data key; the secrets were sealed with the old one.
    (team.folder / "Pulumi.team.yaml").write_text(settings)
    team.pulumi("stack", "import", "--stack", "team", stdin=exported)
    preview(team, "--expect-no-changes")
    assert resources(team) == ALL


def test_a_backend_that_is_away_for_a_moment_costs_nothing(
    team: CloudClone, proxy: Proxy, gate: Gate
) -> None:
    """The engine tries again until what it did is written down."""
    with team.started("up", "--yes", "--skip-preview", "--stack", "team") as engine:
        gate.wait()
        proxy.decide = _times(AWAY, 8)
        gate.open()
        output, _ = engine.communicate(timeout=200)
    assert engine.returncode == 0, output
    open_gate(team)
    assert resources(team) == ALL


def _times(failure: Failure, count: int) -> Callable[[str], Failure | None]:
    """Fails so many requests, then passes the rest on."""
    left = iter([failure] * count)
    return lambda body: next(left, None)


@pytest.mark.slow
def test_a_backend_that_refuses_during_up_stops_it_and_loses_nothing(
    team: CloudClone, proxy: Proxy, gate: Gate
) -> None:
    """The engine starts nothing that it can't write down; the next run is told of the lock, then of what is unknown."""
    with team.started("up", "--yes", "--skip-preview", "--stack", "team") as engine:
        gate.wait()
        refusal = "<Error><Code>AccessDenied</Code><Message>withdrawn</Message></Error>"
        proxy.decide = lambda body: Failure(403, refusal)
        gate.open()
        output, _ = engine.communicate(timeout=400)
    assert engine.returncode != 0
    assert "failed to save snapshot" in output
    assert "AccessDenied: withdrawn" in output
    assert "manual clean up may be required" in output
    assert SECRET not in output
    proxy.decide = lambda body: None
    finish(team)


def test_a_control_node_that_dies_during_up_loses_nothing(team: CloudClone, gate: Gate) -> None:
    """What was done is in the state, what was under way is named, the rest is done by the next run."""
    with team.started("up", "--yes", "--skip-preview", "--stack", "team") as engine:
        gate.wait()
        engine.kill()
        engine.wait()
        gate.open()
    finish(team)


def finish(team: CloudClone) -> None:
    """After a run that died while the second command ran: first the lock, then the rest."""
    assert "the stack is currently locked by 1 lock(s)" in up(team, expect=None)
    team.pulumi("cancel", "--yes", "--stack", "team")
    assert resources(team) == ["first"]
    open_gate(team)
    output = up(team)
    assert "second, interrupted while creating" in output
    assert "+ 2 created" in output
    assert "2 unchanged" in output
    assert resources(team) == ALL
    preview(team, "--expect-no-changes")


def test_a_backend_that_cannot_be_reached_is_named(team: CloudClone, aws: Aws) -> None:
    """Nobody listens, or the bucket is not there: one error that names what was asked."""
    team.variables |= backend("http://127.0.0.1:9")
    assert "connection refused" in preview(team, expect=None)
    team.variables |= backend(aws.url)
    team.variables["PULUMI_BACKEND_URL"] = team.variables["PULUMI_BACKEND_URL"].replace(
        "fleet-state", "nobodys"
    )
    assert "NoSuchBucket" in preview(team, expect=None)


def test_the_shipped_production_stack_previews_on_shared_state(proxy: Proxy, tmp_path: Path) -> None:
    """As a newcomer on AWS begins: the preview goes through and lists what `up` still needs."""
    made = clone(tmp_path / "checkout", state=tmp_path / "state", stack="production")
    checkout = CloudClone(made.folder, made.state, "production", variables=backend(proxy.url))
    checkout.pulumi("stack", "init", "production", "--secrets-provider", provider("state"))
    seen = checkout.pulumi("preview", "--stack", "production").output
    assert "up still needs: fleet:apiKey" in seen
    assert "up still needs: hostKeys" in seen
    refused = checkout.pulumi("up", "--yes", "--skip-preview", "--stack", "production", expect=None).output
    assert "fleet:apiKey: no upstream key" in refused


def test_this_projects_claims_are_shared_by_two_clones(aws: Aws, proxy: Proxy, tmp_path: Path) -> None:
    """One clone claims an instance; another, with the stack's file alone, sees no change to it and can forget it."""
    held = launch(aws, subnets(aws)["a"], "web-1", **{"ssh-host-key": HOST_KEY})
    first = _project(tmp_path, "first", backend(proxy.url))
    content = config() | {"probe": False}
    del content["groups"]["ai_batch_workers"]
    content["groups"]["production"]["children"] = ["ai_api_clients"]
    first.pulumi("stack", "init", "team", "--secrets-provider", provider("state"))
    first.configure(content)
    first.pulumi("config", "set", "--secret", "apiKey", "--stack", "team", stdin=KEY)
    parent = "urn:pulumi:team::fleet::fleet:index:Deployment"
    claim = f"{parent}$command:local:Command::claim-web-1-{held}"
    targets = ["--target", f"{parent}::deployment", "--target", claim]
    first.up(*targets)
    second = _project(tmp_path, "second", backend(proxy.url))
    shutil.copy2(first.folder / "Pulumi.team.yaml", second.folder)
    second.pulumi("stack", "select", "team")
    assert second.up(*targets).changed() == {}
    aws.client("ec2").terminate_instances(InstanceIds=[held])
    second.pulumi("destroy", "--yes", "--skip-preview", "--json", "--stack", "team")
    assert resources(second) == []
    assert [key for key, text in stored(aws).items() if in_text(text, KEY)] == []


def _project(tmp_path: Path, name: str, variables: dict[str, str]) -> CloudClone:
    made = clone(tmp_path / name, state=tmp_path / "state", stack="team")
    return CloudClone(made.folder, made.state, "team", variables=variables)


def test_a_passphrase_gives_way_to_a_key(team: CloudClone, proxy: Proxy, tmp_path: Path) -> None:
    """A stack that began with a passphrase and a local state moves to the bucket without a change."""
    alone = small_project(
        tmp_path / "alone",
        "team",
        backend(proxy.url)
        | {"PULUMI_BACKEND_URL": f"file://{tmp_path}/local", "PULUMI_CONFIG_PASSPHRASE": "ours"},
    )
    (tmp_path / "local").mkdir()
    alone.pulumi("stack", "init", "team")
    alone.pulumi("config", "set", "--secret", "key", "--stack", "team", stdin=SECRET)
    up(alone)
    alone.pulumi("stack", "change-secrets-provider", provider("next"), "--stack", "team")
    exported = alone.pulumi("stack", "export", "--stack", "team").output
    settings = (alone.folder / "Pulumi.team.yaml").read_text()
    team.pulumi("stack", "rm", "--yes", "--force", "--stack", "team")
    alone.variables |= backend(proxy.url)
    alone.pulumi("stack", "init", "team", "--secrets-provider", provider("next"))
    (alone.folder / "Pulumi.team.yaml").write_text(settings)
    alone.pulumi("stack", "import", "--stack", "team", stdin=exported)
    preview(alone, "--expect-no-changes")
    assert resources(alone) == ALL
