"""The files of the role's templates, rendered here: the plan of a host that cannot be asked for its bytes.

The templates are plain Jinja2 over the role's own variables, so the bytes are those that the role sends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from infra.content import ROLE, role_defaults, role_variables
from infra.errors import ContentError

if TYPE_CHECKING:
    from jinja2 import Environment

CONFIG = "ai-client.conf"
_UNITS = "/etc/systemd/system"
_SERVICE, _SOCKET, _TCP_SOCKET = "ai-client.service", "ai-client.socket", "ai-client-tcp.socket"
_EXPRESSION = ("{{", "{%")


def host_variables(inventory: Mapping[str, Any], host: str) -> dict[str, Any]:
    """Role variables that a host gets by an inventory, by Ansible's own order, above the role's defaults.

    Ansible lets deeper groups win, then names that sort later, then the host itself.
    """
    everyone = inventory["all"]
    scopes: dict[str, tuple[int, Mapping[str, Any]]] = {}
    _collect(everyone, host, depth=0, name="all", scopes=scopes)
    merged: dict[str, Any] = {name: value for name, value in role_defaults().items() if name not in _SECRET}
    for _, _, variables in sorted((depth, name, own) for name, (depth, own) in scopes.items() if own):
        merged |= variables
    merged |= _own(everyone, host)
    return {name: _as_role(name, value) for name, value in merged.items() if name in role_variables()}


def _as_role(name: str, value: Any) -> Any:
    """A value as the role's argument_specs convert it, where that decides whether it is empty."""
    return str(value) if role_variables()[name].get("type") == "str" else value


_SECRET = frozenset({"ai_api_key", "ai_api_key_next"})


def _collect(
    group: Mapping[str, Any] | None,
    host: str,
    *,
    depth: int,
    name: str,
    scopes: dict[str, tuple[int, Mapping[str, Any]]],
) -> bool:
    """Notes depth and variables of every group on the way to the host; whether the group holds it."""
    entry = group or {}
    below = [
        _collect(child, host, depth=depth + 1, name=inner, scopes=scopes)
        for inner, child in (entry.get("children") or {}).items()
    ]
    holds = any(below) or host in (entry.get("hosts") or {})
    if holds:
        before, known = scopes.get(name, (0, {}))
        scopes[name] = (max(before, depth), {**known, **(entry.get("vars") or {})})
    return holds


def _own(group: Mapping[str, Any] | None, host: str) -> dict[str, Any]:
    """The host's own variables, wherever it is written."""
    entry = group or {}
    found = dict((entry.get("hosts") or {}).get(host) or {})
    for child in (entry.get("children") or {}).values():
        found |= _own(child, host)
    return found


def files(variables: Mapping[str, Any]) -> dict[str, str]:
    """Text of every file that the role renders for a host, by path.

    Args:
        variables: every variable of the role but the keys, as `host_variables` gives them.

    Raises:
        ContentError: a value is an expression, which only Ansible evaluates.
    """
    for name, text in _texts(variables):
        if any(mark in text for mark in _EXPRESSION) or (_is_path(name) and text[:1] in "~$"):
            raise ContentError(name, "is an expression", "only Ansible can say what it comes to")
    units = [_SOCKET, *([_TCP_SOCKET] if variables["ai_gateway_port"] else []), _SERVICE]
    paths = {f"{variables['ai_config_dir']}/{CONFIG}": CONFIG} | {f"{_UNITS}/{unit}": unit for unit in units}
    return {path: _environment().get_template(f"{name}.j2").render(variables) for path, name in paths.items()}


def _is_path(name: str) -> bool:
    return role_variables()[name].get("type") == "path"


def _texts(variables: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every text among the values, keys of mappings too, with the variable that it is in."""
    todo = [*variables.items()]
    while todo:
        name, value = todo.pop()
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, Mapping):
            todo += [(name, inner) for item in value.items() for inner in item]
        elif isinstance(value, list | tuple):
            todo += [(name, inner) for inner in value]


@cache
def _environment() -> Environment:
    """With the very options that the role renders with."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415  (most runs need none)

    return Environment(
        loader=FileSystemLoader(ROLE / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - an INI file is no HTML
    )
