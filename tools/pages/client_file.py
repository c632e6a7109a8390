"""The keys of a host's `ai-client.conf`, from the client's own settings."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import PurePath
from typing import Any

from infra.content import ROLE, role_variables
from tools.pages import markdown

_INTRO = """\
`/etc/ai-client/ai-client.conf`, which the role writes from [its variables](role-variables.md). `ai-client config check`
says all that is wrong with such a file. Beside these, `[model_costs]` has a line `MODEL = DOLLARS` or
`MODEL = input=…, output=…, cached_input=…` a model (dollars per million tokens), `[cost_tags]` any `NAME = VALUE`."""

# No kind of value takes this, so each says what it wants instead.
_IMPOSSIBLE = "\0\n"
_LINE = re.compile(r"^(\w+) = .*?\b(ai_\w+)")


def text() -> str:
    """The page."""
    from ai_client.settings import model  # noqa: PLC0415 - the client may lack parts while it grows

    variables = _variables()
    sections = {**model.SECTIONS, f"{model.TENANT_PREFIX}NAME": model.TenantSettings}
    return markdown.page(
        "The client's file",
        _INTRO,
        *(_section(name, section, variables) for name, section in sections.items()),
    )


def _section(name: str, section: type[Any], variables: dict[tuple[str, str], str]) -> str:
    rows = []
    for field in fields(section):
        if "key" in field.metadata:
            key = field.metadata["key"]
            variable = variables.get((name, key), "")
            meaning = str(role_variables().get(variable, {}).get("description", ""))
            rows.append((f"`{key}`", _wanted(field.metadata["kind"]), _default(field.default), meaning))
    about = re.sub(r"\s+", " ", section.__doc__ or "").removeprefix(f"`[{name}]`: ")
    listed = markdown.table(("key", "value", "default", "meaning"), rows)
    return f"## `[{name}]`\n\n{about[:1].upper()}{about[1:]}\n\n{listed}"


def _wanted(kind: Any) -> str:
    try:
        kind(_IMPOSSIBLE)
    except ValueError as error:
        return str(error).removeprefix("write ").replace("one of ", "")
    return "any text"


def _default(value: object) -> str:
    return markdown.code(str(value) if isinstance(value, PurePath) else list(value) if value == () else value)


def _variables() -> dict[tuple[str, str], str]:
    """Role variable behind each section and key, read from the role's template."""
    found: dict[tuple[str, str], str] = {}
    section = ""
    for line in (ROLE / "templates" / "ai-client.conf.j2").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif match := _LINE.match(line):
            found[section, match[1]] = match[2]
    return found
