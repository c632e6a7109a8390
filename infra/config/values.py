"""What a role variable's value may be: choices of the role, and the bounds and forms that `values.yml` lists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml

from infra.config.names import nearest
from infra.errors import SettingsError

_FILE: Final = Path(__file__).with_name("values.yml")
#: Only Ansible says what these come to.
_OF_ANSIBLE: Final = ("{{", "{%")
_SHOWN_CHARS: Final = 60


@cache
def _listed() -> Mapping[str, Mapping[str, Any]]:
    listed: Mapping[str, Mapping[str, Any]] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return listed


def wrong_values(where: str, name: str, value: Any, *, choices: tuple[str, ...]) -> Iterator[SettingsError]:
    """What is wrong with a value of the right type.

    Args:
        where: the key that the value stands at.
        name: the role's variable.
        value: what the stack's file holds; never a secret.
        choices: the words that the role allows; empty for any.
    """
    if _is_expression(value):
        return
    if choices and str(value) not in choices:
        words = f"write {', '.join(choices[:-1])} or {choices[-1]}"
        near = nearest(str(value), choices)
        remedy = f"{near} ({words})" if near.startswith("did") else words
        yield SettingsError(where, f"is {_shown(value)}, which is not one of its values", remedy)
    number, text, each = (_listed()[kind].get(name) for kind in ("numbers", "texts", "lists"))
    if number is not None and (remedy := _outside(value, number)):
        yield SettingsError(where, f"is {_shown(value)}, which is out of bounds", remedy)
    if text is not None and not (text.get("optional") and value == ""):
        yield from _of_form(where, str(value), form=text["form"])
    if each is not None:
        for index, item in enumerate(value):
            if _is_expression(item):
                continue
            yield from _of_form(f"{where}.{index}", str(item), form=each["form"])


def _is_expression(value: Any) -> bool:
    return isinstance(value, str) and any(mark in value for mark in _OF_ANSIBLE)


def _outside(value: float, bounds: Mapping[str, float]) -> str:
    """How to write a number that is out of bounds; "" where it is within. A NaN is within none."""
    least, most = bounds.get("above", bounds.get("least", 0)), bounds.get("most")
    is_within = (value > least if "above" in bounds else value >= least) and (most is None or value <= most)
    if is_within:
        return ""
    start = f"{'above' if 'above' in bounds else 'from'} {least:g}"
    return f"write a number {start}{'' if most is None else f' to {most}'}"


def _of_form(where: str, text: str, *, form: str) -> Iterator[SettingsError]:
    wanted = _listed()["forms"][form]
    # Only the host knows its home folders and its environment.
    is_of_host = form == "path" and text[:1] in {"~", "$"}
    if not is_of_host and not _has_form(text, wanted):
        # An address may hold a login, so that none is shown.
        reason = "is no such address" if "schemes" in wanted else f"is {_shown(text)}, which can't be used"
        yield SettingsError(where, reason, wanted["remedy"])


def _has_form(text: str, wanted: Mapping[str, Any]) -> bool:
    if "pattern" in wanted:
        return re.fullmatch(wanted["pattern"], text) is not None
    if "zone" in wanted:
        return _is_zone(text)
    return ("@" not in text or wanted.get("login", True)) and _is_address(text, wanted["schemes"])


def _is_address(text: str, schemes: list[str]) -> bool:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    return parts.scheme in schemes and bool(host) and port != 0 and not parts.query and not parts.fragment


def _is_zone(text: str) -> bool:
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return text == "UTC"
    return True


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
