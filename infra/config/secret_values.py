"""Secret texts among the variables of a stack: `pulumi config set --secret --path 'fleet:vars.X' …`.

Pulumi tells a program which keys hold a secret, not where in them it is; the stack's file does. In the settings an
expression stands in the place of each secret text: Ansible finds the text in its environment, which a run gets on
standard input. So inventories, outputs, claims and plans are made as if there were no secret, and hold none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import SecretStr

from infra.config.schema import PREFIX
from infra.errors import SettingsError
from infra.secret_texts import NAME_PREFIX, expression

# Keys whose variables may hold secrets.
HOLDERS = frozenset({"vars", "groups", "upstreams", "coordination"})

Path = tuple[str | int, ...]


def paths_in_file(content: Mapping[str, Any], key: str) -> tuple[Path, ...]:
    """Where a stack's file has encrypted values below a key; () is the key itself.

    Args:
        content: the file's `config`.
        key: full key, such as `fleet:vars`.
    """
    return tuple(_encrypted(content.get(key), ()))


def _encrypted(value: Any, path: Path) -> Iterator[Path]:
    if isinstance(value, Mapping):
        if set(value) == {"secure"}:
            yield path
            return
        for name, inner in value.items():
            yield from _encrypted(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _encrypted(inner, (*path, index))


def texts_at(value: Any, paths: Iterable[Path]) -> Iterator[str]:
    """Every text of a value that is at one of the paths, or below one."""
    for path in paths:
        found = value
        for part in path:
            found = _inner(found, part)
        yield from _texts(found)


def _inner(value: Any, part: str | int) -> Any:
    if isinstance(value, Mapping):
        return value.get(part)
    return value[part] if isinstance(value, list) and isinstance(part, int) and part < len(value) else None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for each in inner:
        yield from _texts(each)


class Hider:
    """Puts expressions in the place of secret texts, and keeps the texts.

    Attributes:
        values: secret texts by the name of the environment variable that holds them.
        errors: what can't be secret.
    """

    def __init__(self) -> None:
        self.values: dict[str, SecretStr] = {}
        self.errors: list[SettingsError] = []

    def hide(self, key: str, value: Any, paths: Iterable[Path] | None) -> Any:
        """The value of a key without its secret texts.

        Args:
            key: the key without its prefix: `vars` or `groups`.
            value: its value.
            paths: where in it secrets are; where that is not known, every text of a variable counts as one.
        """
        for path in paths or ():
            if path and not _is_in_variables((key, *path)):
                self.errors.append(_cannot_hide(PREFIX + ".".join(map(str, (key, *path)))))
        return self._hidden((key,), value, frozenset(paths) if paths is not None else frozenset({()}))

    def _hidden(self, path: Path, value: Any, secret: frozenset[Path]) -> Any:
        if isinstance(value, Mapping):
            return {name: self._hidden((*path, name), inner, secret) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._hidden((*path, index), inner, secret) for index, inner in enumerate(value)]
        is_secret = any(path[1 : 1 + len(place)] == place for place in secret)
        if not is_secret or not isinstance(value, str) or not _is_in_variables(path):
            return value
        name = variable_name(path)
        self.values[name] = SecretStr(value)
        return expression(name)


def _is_in_variables(path: Path) -> bool:
    """Whether a place is inside of a variable of all hosts, a group or a host, or has a key or password of its own."""
    if path[0] == "coordination":
        return path[1:] == ("password",)
    if path[0] == "upstreams":
        return len(path) == 3 and path[2] in ("apiKey", "apiKeyNext")
    places: tuple[Path, ...] = (path[:1], path[0:1] + path[2:3], path[0:1] + path[2:3] + path[4:5])
    return (
        (places[0] == ("vars",) and len(path) > 1)
        or (places[1] == ("groups", "vars") and len(path) > 3)
        or (places[2] == ("groups", "hosts", "vars") and len(path) > 5)
    )


def _cannot_hide(key: str) -> SettingsError:
    return SettingsError(
        key,
        "is stored as a secret, but a stack's outputs and ssh configuration show it",
        "set it again without --secret; variables and keys can be secret",
    )


def cannot_hide(keys: Iterable[str]) -> Iterator[SettingsError]:
    """What is wrong with keys (without prefix) that are stored as secrets and can't be kept as ones."""
    return (_cannot_hide(PREFIX + key) for key in sorted(keys))


def variable_name(path: Path) -> str:
    """Name of the environment variable that brings the secret text of a place to Ansible."""
    dotted = ".".join(map(str, path))
    readable = re.sub(r"[^A-Z0-9]+", "_", dotted.upper())[-80:]
    return f"{NAME_PREFIX}{readable}_{hashlib.sha256(dotted.encode()).hexdigest()[:6].upper()}"
