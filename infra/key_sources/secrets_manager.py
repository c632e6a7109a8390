"""AWS Secrets Manager: the versions of a secret by their stages."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import SecretStr

from infra.config.key_source import ApiKeySecretSettings
from infra.errors import KeySourceError
from infra.key_sources.held import Held, Surroundings, Wanted

CURRENT, PENDING, PREVIOUS = STAGES = ("AWSCURRENT", "AWSPENDING", "AWSPREVIOUS")


def read(source: ApiKeySecretSettings, wanted: Wanted, _: Surroundings) -> Held:
    """Asks AWS by the caller's ordinary credentials.

    Raises:
        KeySourceError: AWS gave none, or the secret holds no key.
    """
    from infra.hosts.aws import Account  # noqa: PLC0415  (boto3 takes a second to load)

    account = Account(source.region, source.role_arn, culprit=wanted.culprit, error=KeySourceError)
    return from_versions(account.secret_versions(source.secret_id, STAGES), field=source.field, wanted=wanted)


def from_versions(versions: Mapping[str, str], *, field: str | None, wanted: Wanted) -> Held:
    """The key, and the other key of a rotation, from a secret's versions by stage.

    While a rotation is under way the other key is the pending one. After it, it is the previous one, until its
    stage is taken away.

    Args:
        versions: text of the version at each stage that there is.
        field: name of the key's field, where the text is a JSON object.
        wanted: what is asked for.

    Raises:
        KeySourceError: a version is missing or holds no key.
    """
    keys = {stage: _key(stage, text, field, wanted) for stage, text in versions.items() if stage in STAGES}
    if CURRENT not in keys:
        raise wanted.error(f"the secret has no version {CURRENT}", "put a value into the secret")
    current = keys[CURRENT]
    others = (keys[stage] for stage in (PENDING, PREVIOUS) if stage in keys)
    return Held(current, next((key for key in others if key != current), None))


def _key(stage: str, text: str, field: str | None, wanted: Wanted) -> SecretStr:
    value: object = text
    if field is not None:
        try:
            content = json.loads(text)
        except ValueError:
            content = None
        value = content.get(field) if isinstance(content, dict) else None
    where = f"field {field} of version {stage}" if field is not None else f"version {stage}"
    remedy = "put only the key into it, or name its field in a JSON object with field"
    return wanted.key(
        value, where=where, remedy=remedy + ("" if stage == CURRENT else f", or take the stage {stage} away")
    )
