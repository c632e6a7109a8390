"""Upstream keys: what may be said about them, and how they travel."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from infra.key_forms import LONGEST, PREFIX, REST, SHORTEST

# The variable that users' hand-run playbooks read; the role's `ai_api_key` defaults to it.
KEY_VARIABLE = "HOLYSHEEP_API_KEY"
NEXT_KEY_VARIABLE = "HOLYSHEEP_API_KEY_NEXT"

# In words, for errors.
FORM = "one starts with hs_live_ or hs_test_, followed by letters, digits, _ or -"

_FINGERPRINT_LENGTH = 12
_HOLYSHEEP = "holysheep.ai"
_ANY_KEY = re.compile(r"[\x21\x23-\x26\x28-\x7e]{8,8192}")
_KEY = re.compile(f"{PREFIX}{REST}{{{SHORTEST},{LONGEST}}}")


def is_key(value: object, *, prefixes: Sequence[str] | None = None) -> bool:
    """Whether a value has the form of a key: of HolySheep's, or of one that begins with one of `prefixes`.

    Without any prefix it is a key of whatever form.
    """
    if not isinstance(value, str):
        return False
    if prefixes is None:
        return bool(_KEY.fullmatch(value))
    return bool(_ANY_KEY.fullmatch(value)) and (not prefixes or value.startswith(tuple(prefixes)))


def declared_prefixes(*scopes: Mapping[str, Any]) -> tuple[str, ...] | None:
    """What the variables say of the default upstream's keys; None where it is HolySheep's, as none say otherwise.

    Hosts may have several upstreams as their default; a key then fits that fits one of them.
    """
    prefixes = [
        word for each in scopes for word in re.split(r"[\s,]+", str(each.get("ai_key_prefix") or "")) if word
    ]
    if prefixes:
        return tuple(prefixes)
    urls = [str(each["ai_base_url"]) for each in scopes if each.get("ai_base_url")]
    hosts = [urlsplit(url).hostname or "" for url in urls]
    return () if any(host != _HOLYSHEEP and not host.endswith(f".{_HOLYSHEEP}") for host in hosts) else None


def scopes_of(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All variables of a stack's settings, as they are written: the fleet's, the groups' and the hosts'."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            if name == "vars":
                yield value
            yield from scopes_of(value)


def form_of(prefixes: Sequence[str] | None) -> str:
    """What a key looks like, for people."""
    if prefixes is None:
        return FORM
    begin = (
        f"one starts with {' or '.join(prefixes)}" if prefixes else "one has 8 printable characters or more"
    )
    return f"{begin}, without blanks and quotes"


def fingerprint(key: SecretStr) -> str:
    """What stands for a key in outputs, logs and journals: the start of its SHA-256, in hexadecimal."""
    return hashlib.sha256(key.get_secret_value().encode()).hexdigest()[:_FINGERPRINT_LENGTH]


def environment(key: SecretStr | None, key_next: SecretStr | None = None) -> dict[str, str]:
    """Environment of a playbook run that carries the key, and the one that a rotation goes to."""
    named = {KEY_VARIABLE: key, NEXT_KEY_VARIABLE: key_next}
    return {name: value.get_secret_value() for name, value in named.items() if value is not None}
