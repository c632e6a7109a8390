"""Every key that a user may set does something: some module reads it."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from ai_client.settings.sections import NAMED_SECTIONS, SECTIONS
from tests.house.reads import Model, Reader, models, parse

PROJECT = Path(__file__).resolve().parents[2]
CLIENT = "client/src/ai_client/settings/sections.py"
STACK = "infra/config/schema.py"
ROLE = PROJECT / "ansible" / "roles" / "ai_client"
# The file declares what is the only way that logs are written: a stranger's value is an error of the file.
SAY_WHAT_IS_SO = {"LoggingSettings.format", "LoggingSettings.rotation"}


def sources(root: str, *, without: str) -> dict[str, str]:
    """The modules below a folder by their paths."""
    found = {str(path.relative_to(PROJECT)): path for path in (PROJECT / root).rglob("*.py")}
    return {name: path.read_text(encoding="utf-8") for name, path in found.items() if name != without}


def known(schema: str) -> dict[str, Model]:
    """The classes of settings of a module."""
    return models(ast.parse((PROJECT / schema).read_text(encoding="utf-8")))


def unread(classes: dict[str, Model], texts: dict[str, str]) -> list[str]:
    """`Class.field` of what no module reads."""
    reader = Reader(classes)
    reader.read(parse(texts))
    return reader.unread()


def test_every_key_of_the_configuration_file_is_read() -> None:
    """A key that only says what is so has one value, and no other is taken."""
    assert set(unread(known(CLIENT), sources("client/src/ai_client", without=CLIENT))) == SAY_WHAT_IS_SO
    kinds = {
        f"{section.__name__}.{item.name}": item.metadata["kind"]
        for section in (*SECTIONS.values(), *NAMED_SECTIONS.values())
        for item in fields(section)
        if "kind" in item.metadata
    }
    for name in SAY_WHAT_IS_SO:
        with pytest.raises(ValueError, match=r"^write one of \w+$"):
            kinds[name]("another")


def test_every_key_of_a_stack_is_read() -> None:
    """`fleet:*`, whole."""
    assert unread(known(STACK), sources("infra", without=STACK)) == []


@pytest.mark.parametrize(
    ("schema", "root", "name", "reader"),
    [
        (CLIENT, "client/src/ai_client", "ApiSettings.max_retries", "configure/assembly.py"),
        (CLIENT, "client/src/ai_client", "TenantSettings.priority", "gateway/app/callers.py"),
        (CLIENT, "client/src/ai_client", "GatewaySettings.unnamed_callers", "gateway/process/runtime.py"),
        (STACK, "infra", "GroupSettings.canary", "plan/schedule.py"),
        (STACK, "infra", "SimulatorSettings.tpm", "resources/local_hosts.py"),
    ],
)
def test_a_key_whose_only_reader_goes_is_found(schema: str, root: str, name: str, reader: str) -> None:
    """The test of these tests: without the module that reads it, the key is named."""
    texts = sources(root, without=schema)
    assert name not in unread(known(schema), texts)
    del texts[f"{root}/{reader}"]
    assert name in unread(known(schema), texts)


def test_a_key_that_is_new_is_found() -> None:
    """Whatever bears the same name elsewhere."""
    text = (PROJECT / CLIENT).read_text(encoding="utf-8")
    mutant = text.replace("    daily_usd:", "    address: str = ''\n    daily_usd:", 1)
    assert mutant != text
    found = unread(models(ast.parse(mutant)), sources("client/src/ai_client", without=CLIENT))
    assert set(found) - SAY_WHAT_IS_SO == {"TenantSettings.address"}


def role_readers() -> str:
    """What reads the role's variables: tasks, templates, playbooks and plugins, without their comments."""
    folders = (ROLE / "tasks", ROLE / "templates", ROLE / "vars", PROJECT / "ansible" / "plugins")
    more = (PROJECT / "ansible" / "applier", PROJECT / "ansible" / "playbooks")
    files = [path for folder in (*folders, *more) for path in folder.rglob("*")]
    comments = {".yml": r"(?m)^\s*#.*$", ".py": r"(?m)^\s*#.*$", ".j2": r"(?s)\{#.*?#\}"}
    return "\n".join(
        re.sub(comments[path.suffix], "", path.read_text(encoding="utf-8"))
        for path in files
        if path.suffix in comments
    )


def unread_variables(declared: set[str], text: str) -> set[str]:
    """Those of the variables that stand nowhere as a whole word."""
    return declared - set(re.findall(r"\bai_\w+\b", text))


def test_every_variable_of_the_role_is_read() -> None:
    """By a task, a template or a plugin; a new one is found."""
    declared = set(yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8")))
    assert unread_variables(declared | {"ai_new"}, role_readers()) == {"ai_new"}
