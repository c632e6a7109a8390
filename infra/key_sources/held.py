"""What a source holds: a key and, while a rotation is under way, the one that it goes to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import SecretStr

from infra.errors import KeySourceError


class Held(NamedTuple):
    """The key, and the other key of a rotation, where there is one."""

    key: SecretStr
    following: SecretStr | None = None


class Surroundings(NamedTuple):
    """Where a source is asked from: variables of the environment, and the folder that files are relative to."""

    environment: Mapping[str, str]
    project: Path


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a source.

    Attributes:
        culprit: the configuration key that an error names.
        is_key: whether a text has the form of a key of this upstream.
        form: that form in words.
    """

    culprit: str
    is_key: Callable[[object], bool]
    form: str

    def key(self, value: object, *, where: str, remedy: str) -> SecretStr:
        """A value as a key.

        Raises:
            KeySourceError: it is none; never says what it is.
        """
        if not isinstance(value, str) or not self.is_key(value):
            raise self.error(f"{where} is not a key: {self.form}", remedy)
        return SecretStr(value)

    def error(self, reason: str, remedy: str) -> KeySourceError:
        """An error about this source."""
        return KeySourceError(self.culprit, reason, remedy)


def from_fields(
    fields: Mapping[str, Any], *, field: str, next_field: str, wanted: Wanted, where: str
) -> Held:
    """The keys from an object that holds each in a field of its own; an empty or missing next one is none.

    A dot in a field's name leads into an object, where no field has the whole name.

    Raises:
        KeySourceError: a field holds no key, or the first is not there.
    """
    value = _at(fields, field)
    if value is None:
        raise wanted.error(f"{where} has no field {field}", "write the key into it, or name its field")
    remedy = "put only the key into it"
    key = wanted.key(value, where=f"field {field} of {where}", remedy=remedy)
    other = _at(fields, next_field)
    if other in (None, "") or other == value:
        return Held(key)
    remedy = f"{remedy}, or take {next_field} away"
    return Held(key, wanted.key(other, where=f"field {next_field} of {where}", remedy=remedy))


def from_text(text: str, *, field: str | None, next_field: str, wanted: Wanted, where: str) -> Held:
    """The key from a text that is the key alone, or a JSON object where a field is named.

    Raises:
        KeySourceError: the text is neither.
    """
    if field is None:
        remedy = "make it only the key, or name the key's field in a JSON object with field"
        return Held(wanted.key(text.strip(), where=where, remedy=remedy))
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise wanted.error(
            f"{where} is not a JSON object, and field names one of its fields", "take field out"
        )
    return from_fields(content, field=field, next_field=next_field, wanted=wanted, where=where)


def _at(fields: Mapping[str, Any], name: str) -> Any:
    if name in fields:
        return fields[name]
    first, dot, rest = name.partition(".")
    inner = fields.get(first)
    return _at(inner, rest) if dot and isinstance(inner, Mapping) else None
