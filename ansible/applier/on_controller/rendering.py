"""Renders the role's templates with plain Jinja2, from the role's variables alone."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from .errors import DeliveryError

CONFIG = "ai-client.conf"
SERVICE = "ai-client.service"
SOCKET = "ai-client.socket"
TCP_SOCKET = "ai-client-tcp.socket"


def load_templates(folder: Path) -> dict[str, Template]:
    """Every template of the role, compiled, by the name of the file that it makes.

    Whoever renders them elsewhere takes the same options; the template itself uses nothing beyond.
    """
    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - an INI file is no HTML
    )
    names = environment.list_templates(extensions=["j2"])
    return {name.removesuffix(".j2"): environment.get_template(name) for name in names}


def render_config(templates: Mapping[str, Template], variables: Mapping[str, Any]) -> str:
    """The client's configuration file."""
    _refuse_control_characters(variables)
    return templates[CONFIG].render(variables)


def render_units(templates: Mapping[str, Template], variables: Mapping[str, Any]) -> dict[str, str]:
    """The systemd units by name, sockets first. Port 0 has no TCP socket."""
    _refuse_control_characters(variables)
    names = [SOCKET, *([TCP_SOCKET] if variables["ai_gateway_port"] else []), SERVICE]
    return {name: templates[name].render(variables) for name in names}


def _refuse_control_characters(variables: Mapping[str, Any]) -> None:
    """A line end in a value would begin a line of its own in the file."""
    for name, value in variables.items():
        # Certificates have lines, and are never in a template's text.
        if name != "ai_custom_ca" and not all(text.isprintable() for text in _texts(value)):
            raise DeliveryError(
                name, "contains a line break or another control character", "write it on one line"
            )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from (*_texts(key), *_texts(item))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
