"""Secret texts among variables, as everything but the settings sees them: by the expressions that stand for them.

A run imports this module, and no settings: their models would slow its start.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

NAME_PREFIX = "FLEET_SECRET_"

_EXPRESSION = "{{{{ lookup('ansible.builtin.env', '{name}') }}}}"
_NAMES = re.compile(rf"{NAME_PREFIX}[A-Z0-9_]+")
_FINGERPRINT_BYTES = 8
_MASKED = "[masked]"
# Shorter ones would mask words that are no secret.
_SHORTEST_MASKED = 4


def expression(name: str) -> str:
    """What stands in the settings in the place of a secret text."""
    return _EXPRESSION.format(name=name)


def reveal(value: Any, values: Mapping[str, str]) -> Any:
    """A structure with the secret texts in their places: for what is compared or rendered in memory alone.

    Args:
        value: a structure that may hold expressions.
        values: secret texts by name.
    """
    known = {expression(name): text for name, text in values.items()}
    return _revealed(value, known) if known else value


def _revealed(value: Any, known: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return known.get(value, value)
    if isinstance(value, Mapping):
        return {name: _revealed(inner, known) for name, inner in value.items()}
    if isinstance(value, list):
        return [_revealed(inner, known) for inner in value]
    return value


def names_in(text: str) -> frozenset[str]:
    """Names of the secrets whose expressions a text holds."""
    return frozenset(_NAMES.findall(text))


def mask_values(text: str, values: Iterable[str]) -> str:
    """The text with each secret text masked, and each line of one that has several."""
    lines = {line for value in values for line in (value, *value.splitlines())}
    for line in sorted(lines, key=len, reverse=True):
        if len(line.strip()) >= _SHORTEST_MASKED:
            text = text.replace(line, _MASKED)
    return text


@cache
def fingerprint(secrets: frozenset[tuple[str, str]]) -> str:
    """What stands for secret texts where a change of them is to be seen. Slow by design: a password may be short."""
    text = "\0".join(f"{name}={value}" for name, value in sorted(secrets))
    stretched = hashlib.scrypt(
        text.encode(), salt=b"ai-client-fleet", n=2**14, r=8, p=1, dklen=_FINGERPRINT_BYTES
    )
    return stretched.hex()
