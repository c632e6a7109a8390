import json
from typing import Any

import pytest

from infra.errors import KeySourceError, SettingsError
from infra.key_sources.read import with_keys
from infra.key_sources.secrets_manager import from_versions
from tests.aws_server import REGION, Aws
from tests.infra.key_sources.wanted import WANTED, keys
from tests.infra.stacks import KEY, load, shipped

NAME = "fleet/production/upstream-key"
NEXT = "hs_test_the_next_key"
OLD = "hs_test_the_old_key"


def config(**chosen: Any) -> dict[str, Any]:
    """Production with its key in Secrets Manager."""
    return shipped("production") | {"apiKeySecret": {"secretId": NAME, "region": REGION} | chosen}


def test_the_current_version_is_the_key(account: Aws) -> None:
    """Every group without a key of its own gets it; nothing that is printed shows it."""
    account.client("secretsmanager").create_secret(Name=NAME, SecretString=KEY)
    settings = with_keys(load(config()))
    assert keys(settings) == (KEY, None)
    assert settings.key_for("ai_api_clients") == settings.api_key
    assert KEY not in repr(settings) + settings.model_dump_json()


def test_a_rotation_goes_by_the_versions_stages(account: Aws) -> None:
    """While a rotation is under way the other key is the pending one; after it, the previous one until it is let go."""
    client = account.client("secretsmanager")
    client.create_secret(Name=NAME, SecretString=OLD)
    pending = client.put_secret_value(SecretId=NAME, SecretString=NEXT, VersionStages=["AWSPENDING"])[
        "VersionId"
    ]
    settings = load(config())
    assert keys(with_keys(settings)) == (OLD, NEXT)
    held = client.describe_secret(SecretId=NAME)["VersionIdsToStages"]
    old = next(version for version, stages in held.items() if "AWSCURRENT" in stages)
    client.update_secret_version_stage(
        SecretId=NAME, VersionStage="AWSCURRENT", MoveToVersionId=pending, RemoveFromVersionId=old
    )
    assert keys(with_keys(settings)) == (NEXT, OLD)
    client.update_secret_version_stage(SecretId=NAME, VersionStage="AWSPREVIOUS", RemoveFromVersionId=old)
    assert keys(with_keys(settings)) == (NEXT, None)


def test_the_key_may_be_a_field_of_a_json_object(account: Aws) -> None:
    """As the console writes a secret."""
    text = json.dumps({"apiKey": KEY, "owner": "platform"})
    account.client("secretsmanager").create_secret(Name=NAME, SecretString=text)
    assert keys(with_keys(load(config(field="apiKey")))) == (KEY, None)


WRONG = "sk-something-else-0123456789"


@pytest.mark.parametrize(
    ("versions", "field", "said"),
    [
        ({}, None, "the secret has no version AWSCURRENT"),
        ({"AWSPREVIOUS": OLD}, None, "the secret has no version AWSCURRENT"),
        (
            {"AWSCURRENT": WRONG},
            None,
            "version AWSCURRENT is not a key: one starts with hs_live_ or hs_test_",
        ),
        ({"AWSCURRENT": f"{KEY}\n"}, None, "version AWSCURRENT is not a key"),
        ({"AWSCURRENT": ""}, None, "version AWSCURRENT is not a key"),
        ({"AWSCURRENT": KEY, "AWSPREVIOUS": WRONG}, None, "or take the stage AWSPREVIOUS away"),
        (
            {"AWSCURRENT": json.dumps({"apiKey": WRONG})},
            "apiKey",
            "field apiKey of version AWSCURRENT is not a key",
        ),
        ({"AWSCURRENT": json.dumps([WRONG])}, "apiKey", "field apiKey of version AWSCURRENT is not a key"),
        ({"AWSCURRENT": WRONG}, "apiKey", "field apiKey of version AWSCURRENT is not a key"),
    ],
)
def test_what_is_no_key_is_refused_and_not_repeated(
    versions: dict[str, str], field: str | None, said: str
) -> None:
    """The prefix rule is that of `fleet:apiKey`; the error never shows what the secret holds."""
    with pytest.raises(KeySourceError) as raised:
        from_versions(versions, field=field, wanted=WANTED)
    assert said in str(raised.value)
    assert not any(value in str(raised.value) for value in (KEY, OLD, WRONG))


def test_stages_of_ones_own_are_not_looked_at() -> None:
    """A secret may have versions for other programs."""
    assert from_versions({"AWSCURRENT": KEY, "canary": WRONG}, field=None, wanted=WANTED).following is None


def test_a_pending_version_that_is_already_current_is_no_other_key() -> None:
    """Rotation functions leave AWSPENDING on the version that became current."""
    versions = {"AWSCURRENT": NEXT, "AWSPENDING": NEXT, "AWSPREVIOUS": OLD}
    other = from_versions(versions, field=None, wanted=WANTED).following
    assert other is not None
    assert other.get_secret_value() == OLD


def test_a_secret_that_is_not_there_is_named(account: Aws) -> None:
    """A misspelt name is one clear error."""
    with pytest.raises(KeySourceError, match=r"fleet:apiKeySecret: .*ResourceNotFoundException"):
        with_keys(load(config()))


def test_a_key_has_one_source() -> None:
    """`apiKey` beside `apiKeySecret` would leave open which one counts."""
    with pytest.raises(SettingsError, match="is set beside fleet:apiKey; keep one"):
        load(config() | {"apiKey": KEY})


def test_the_general_key_says_the_same(account: Aws) -> None:
    """`keySource: {aws: …}` is how the other sources are written; both spellings at once are an error."""
    account.client("secretsmanager").create_secret(Name=NAME, SecretString=KEY)
    kept = {"aws": {"secretId": NAME, "region": REGION}}
    assert keys(with_keys(load(shipped("production") | {"keySource": kept}))) == (KEY, None)
    with pytest.raises(SettingsError, match="fleet:apiKeySecret: is set beside fleet:keySource"):
        load(config() | {"keySource": kept})
