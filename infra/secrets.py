"""Upstream keys: what may be said about them, and how they travel."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

from pydantic import SecretStr

from infra.errors import KeySourceError

# The variable that users' hand-run playbooks read; the role's `ai_api_key` defaults to it.
KEY_VARIABLE = "HOLYSHEEP_API_KEY"
NEXT_KEY_VARIABLE = "HOLYSHEEP_API_KEY_NEXT"

CURRENT, PENDING, PREVIOUS = STAGES = ("AWSCURRENT", "AWSPENDING", "AWSPREVIOUS")

_FINGERPRINT_LENGTH = 12
_KEY = re.compile(r"hs_(live|test)_[A-Za-z0-9_-]{4,500}")


def is_key(value: object) -> bool:
    """Whether a value has the form of an upstream key."""
    return isinstance(value, str) and bool(_KEY.fullmatch(value))


def keys_from_versions(
    versions: Mapping[str, str], *, field: str | None
) -> tuple[SecretStr, SecretStr | None]:
    """The key, and the other key of a rotation, from a secret's versions by stage.

    While a rotation is under way the other key is the pending one. After it, it is the previous one, until its
    stage is taken away.

    Args:
        versions: text of the version at each stage that there is.
        field: name of the key's field, where the text is a JSON object.

    Raises:
        KeySourceError: a version is missing or holds no key; never says what it holds.
    """
    keys = {stage: _key(stage, text, field) for stage, text in versions.items() if stage in STAGES}
    if CURRENT not in keys:
        raise KeySourceError(_SOURCE, f"the secret has no version {CURRENT}", "put a value into the secret")
    current = keys[CURRENT]
    others = (keys[stage] for stage in (PENDING, PREVIOUS) if stage in keys)
    other = next((key for key in others if key != current), None)
    return SecretStr(current), SecretStr(other) if other else None


_SOURCE = "fleet:apiKeySecret"


def _key(stage: str, text: str, field: str | None) -> str:
    value: object = text
    if field is not None:
        try:
            content = json.loads(text)
        except ValueError:
            content = None
        value = content.get(field) if isinstance(content, dict) else None
    if not isinstance(value, str) or not is_key(value):
        where = f"field {field} of version {stage}" if field is not None else f"version {stage}"
        raise KeySourceError(
            _SOURCE,
            f"{where} is not a key: one starts with hs_live_ or hs_test_, followed by letters, digits, _ or -",
            "put the key alone into it, or name its field in a JSON object with field"
            + ("" if stage == CURRENT else f", or take the stage {stage} away"),
        )
    return value


def fingerprint(key: SecretStr) -> str:
    """What stands for a key in outputs, logs and journals: the start of its SHA-256, in hexadecimal."""
    return hashlib.sha256(key.get_secret_value().encode()).hexdigest()[:_FINGERPRINT_LENGTH]


def environment(key: SecretStr | None, key_next: SecretStr | None = None) -> dict[str, str]:
    """Environment of a playbook run that carries the key, and the one that a rotation goes to."""
    named = {KEY_VARIABLE: key, NEXT_KEY_VARIABLE: key_next}
    return {name: value.get_secret_value() for name, value in named.items() if value is not None}
