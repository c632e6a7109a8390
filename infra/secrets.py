"""Upstream keys: what may be said about them, and how they travel."""

from __future__ import annotations

import hashlib

from pydantic import SecretStr

# The variable that users' hand-run playbooks read; the role's `ai_api_key` defaults to it.
KEY_VARIABLE = "HOLYSHEEP_API_KEY"

_FINGERPRINT_LENGTH = 12


def fingerprint(key: SecretStr) -> str:
    """What stands for a key in outputs, logs and journals: the start of its SHA-256, in hexadecimal."""
    return hashlib.sha256(key.get_secret_value().encode()).hexdigest()[:_FINGERPRINT_LENGTH]


def environment(key: SecretStr | None) -> dict[str, str]:
    """Environment of a playbook run that carries the key."""
    return {} if key is None else {KEY_VARIABLE: key.get_secret_value()}
