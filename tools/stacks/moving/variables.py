"""Variables of an inventory as the role has them, or why one does not come along. No answer repeats a value."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from infra.hosts import house_rules
from tools.stacks.moving.source import Value, Vault

# What says how to reach a host; a stack has keys of its own for these.
USER, PORT, ADDRESS, IDENTITY = "user", "port", "address", "identity"
CONNECTION: Mapping[str, str] = {
    "ansible_user": USER,
    "ansible_ssh_user": USER,
    "ansible_port": PORT,
    "ansible_ssh_port": PORT,
    "ansible_host": ADDRESS,
    "ansible_ssh_host": ADDRESS,
    "ansible_ssh_private_key_file": IDENTITY,
    "ansible_private_key_file": IDENTITY,
}
KEYS = frozenset({"ai_api_key", "ai_api_key_next", "holysheep_api_key"})

_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Left:
    """Why a variable does not come along, and what to do about it."""

    reason: str


def translated(name: str, value: Value, specs: Mapping[str, Mapping[str, Any]]) -> Left | Any:
    """The value that a stack's file gets for a variable, or why it gets none.

    Args:
        name: name of the variable.
        value: its value in the inventory.
        specs: the role's variables with their types.
    """
    if left := _must_not_move(name, value.content):
        return left
    if name in CONNECTION:
        return _as("int" if CONNECTION[name] == PORT else "str", value.content)
    if name.startswith("ansible_"):
        return value.content
    wanted = "ai_environment" if name == "environment" else name
    if wanted not in specs:
        near = difflib.get_close_matches(name, list(specs), n=1)
        return Left(f"the role has no such variable{f'; perhaps {near[0]} is meant' if near else ''}")
    if _is_expression(value.content):
        return Left("is an expression of Jinja; write the value that it stands for")
    return _as(str(specs[wanted].get("type", "str")), value.content)


def _must_not_move(name: str, content: Any) -> Left | None:
    """Why a variable must not come along, whatever the role makes of it."""
    if name.lower() in KEYS:
        is_hidden = isinstance(content, Vault) or _is_expression(content)
        disclosed = "" if is_hidden else "; this one stood in clear text and is disclosed"
        return Left(f"an upstream key is never copied; use 'pulumi config set --secret apiKey'{disclosed}")
    if isinstance(content, Vault):
        return Left(
            "encrypted with Vault and not read; set it by hand, a secret with 'pulumi config set --secret'"
        )
    if any(house_rules.secret_in(text) for _, text in house_rules.texts(content)):
        return Left("holds a secret in clear text; treat it as disclosed, and set it as a secret")
    breach = next(iter(_breaches(name, content)), None)
    return Left(f"{breach.reason}; {breach.remedy}") if breach else None


def _breaches(name: str, content: Any) -> list[house_rules.Breach]:
    """Rules that an Ansible variable breaks by itself; the role's are judged when all of a host's are known."""
    if not name.startswith("ansible_"):
        return []
    return list(house_rules.breaches({name: content}, house_rules.DEVELOPMENT))


def _is_expression(content: Any) -> bool:
    return any("{{" in text or "{%" in text for _, text in house_rules.texts(content))


def _as(kind: str, content: Any) -> Left | Any:
    """A value in the role's type: an inventory in INI form knows texts and Python's literals alone."""
    try:
        return _CONVERSIONS[kind](content)
    except (KeyError, ValueError, OverflowError):
        return Left(f"is no {kind}; write it as one")


def _truth(content: Any) -> bool:
    return content if isinstance(content, bool) else _TRUTH[str(content).lower()]


def _whole(content: Any) -> int:
    return int(_scalar(content))


def _number(content: Any) -> int | float:
    number = float(_scalar(content))
    return int(number) if number.is_integer() else number


def _scalar(content: Any) -> str:
    """A text or number as text.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(content, bool | list | dict) or content is None:
        raise ValueError
    return str(content)


def _of(wanted: type) -> Callable[[Any], Any]:
    def convert(content: Any) -> Any:
        if isinstance(content, wanted):
            return content
        raise ValueError(wanted)

    return convert


_CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {
    "bool": _truth,
    "int": _whole,
    "float": _number,
    "str": _scalar,
    "path": _scalar,
    "list": _of(list),
    "dict": _of(dict),
}
