"""The files of the role's templates, rendered here: the plan of a host that cannot be asked for its bytes.

The templates are plain Jinja2 over the role's own variables, so the bytes are those that the role sends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from infra.config.precedence import Precedence
from infra.errors import ContentError
from infra.project_files import ROLE, role_defaults, role_variables

if TYPE_CHECKING:
    from jinja2 import Environment

CONFIG = "ai-client.conf"
_UNITS = "/etc/systemd/system"
_SERVICE, _SOCKET, _TCP_SOCKET = "ai-client.service", "ai-client.socket", "ai-client-tcp.socket"
_EXPRESSION = ("{{", "{%")


def host_variables(inventory: Mapping[str, Any], host: str) -> dict[str, Any]:
    """Role variables that a host gets by an inventory, above the role's defaults."""
    return role_view(Precedence.of_inventory(inventory), host)


def role_view(seen: Precedence, host: str) -> dict[str, Any]:
    """Role variables that a host gets, above the role's defaults."""
    usual = {name: value for name, value in role_defaults().items() if name not in _SECRET}
    merged = usual | seen.variables(host)
    return {name: _as_role(name, value) for name, value in merged.items() if name in role_variables()}


def _as_role(name: str, value: Any) -> Any:
    """A value as the role's argument_specs convert it, where that decides whether it is empty."""
    return str(value) if role_variables()[name].get("type") == "str" else value


_SECRET = frozenset({"ai_api_key", "ai_api_key_next"})
# In files of their own, which no template makes.
_UNRENDERED = frozenset({"ai_upstream_keys", "ai_upstream_keys_next", "ai_coordination_password"})


def files(variables: Mapping[str, Any]) -> dict[str, str]:
    """Text of every file that the role renders for a host, by path.

    Args:
        variables: every variable of the role but the keys, as `host_variables` gives them.

    Raises:
        ContentError: a value is an expression, which only Ansible evaluates.
    """
    rendered = {name: value for name, value in variables.items() if name not in _UNRENDERED}
    for name, text in _texts(rendered):
        if any(mark in text for mark in _EXPRESSION) or (_is_path(name) and text[:1] in "~$"):
            raise ContentError(name, "is an expression", "only Ansible can evaluate it")
    units = [_SOCKET, *([_TCP_SOCKET] if variables["ai_gateway_port"] else []), _SERVICE]
    paths = {f"{variables['ai_config_dir']}/{CONFIG}": CONFIG} | {f"{_UNITS}/{unit}": unit for unit in units}
    return {path: _environment().get_template(f"{name}.j2").render(rendered) for path, name in paths.items()}


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
