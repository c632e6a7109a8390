"""Every command in README.md and docs/ is typed by a test, and every link and block is what it seems."""

import ast
import re
from pathlib import Path

from tests.docs.pages import (
    ELSEWHERE,
    LISTS,
    NOT_TYPED,
    OWN_WAY,
    SHELL,
    commands,
    is_command,
    pages,
    text_of,
    to_type,
)
from tests.infra.stacks import PROJECT

# What a block may be written in; a test types those in shell.
LANGUAGES = {*SHELL, "ini", "json", "python", "text", "yaml"}


def walks() -> set[tuple[str, str | None]]:
    """Every page or section that a test goes through, by the calls of `walk` in the tests' code."""
    found: set[tuple[str, str | None]] = set()
    for path in sorted((PROJECT / "tests").rglob("test_*.py")):
        for function in [
            node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)
        ]:
            calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            found |= {_walked(call, path) for call in calls if _name(call) in {"walk", *_SECTIONS}}
    return found


# Functions of the tests that name the page for a section.
_SECTIONS = {"incident": "docs/how-to/incidents.md", "of_shared_state": "docs/how-to/shared-state.md"}


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _walked(call: ast.Call, path: Path) -> tuple[str, str | None]:
    said = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    page = _SECTIONS.get(_name(call))
    texts = [str(text) for text in ([page, *said] if page else said)]
    return (texts[0], texts[1] if len(texts) > 1 else None) if texts else (str(path), None)


def test_every_command_is_typed_by_a_test() -> None:
    """`walk` fails where a test leaves a command of its page out; here, that each page has its walk."""
    walked = walks()
    missing = [
        (page, command.section, command.text)
        for page in pages()
        for command in to_type(page)
        if not {(page, None), (page, command.section)} & walked
    ]
    assert missing == []


def test_the_list_of_what_no_test_types_is_short_and_current() -> None:
    """Each entry is for something that a page still says, and what another test types is typed there."""
    said = [command.text.strip() for page in pages() for command in commands(page)]
    assert [text for text in NOT_TYPED if not any(own.startswith(text) for own in said)] == []
    assert [text for text in ELSEWHERE if not any(text in own for own in said)] == []
    assert [part for part in LISTS if not any(page.startswith(part) for page in pages())] == []
    assert [
        page for page, test in OWN_WAY.items() if Path(page).name not in (PROJECT / test).read_text()
    ] == []
    for text, test in ELSEWHERE.items():
        assert text.split()[0] in (PROJECT / test).read_text()
    assert len(NOT_TYPED) < 15


def test_every_block_says_what_it_is_written_in() -> None:
    """A block without a language would be typed by nobody."""
    for page in pages():
        opened = re.findall(r"^ *```([^\n]*)", text_of(page), re.MULTILINE)
        assert {info.strip() for info in opened[::2]} <= LANGUAGES, page
        assert {info.strip() for info in opened[1::2]} <= {""}, page


def test_no_command_has_a_gap_for_the_reader_to_fill() -> None:
    """What is to be typed can be copied."""
    gaps = [
        (page, c.text) for page in pages() for c in to_type(page) if re.search(r"…|<[a-z]+>|\.\.\.", c.text)
    ]
    assert gaps == []


def test_code_in_the_text_is_told_from_commands() -> None:
    """Names of programs, files and variables are no commands; a tool that works without words is one."""
    assert is_command("make up")
    assert is_command("AI_CLIENT_FLEET_STACK=dev tools/env ansible all -m ping")
    assert is_command("tools/artefact/build")
    assert is_command("sudo /opt/ai-client/bin/ai-client usage")
    for text in ("make", "pulumi", "tools/env", "ansible/ansible.cfg", "tools/engine/pulumi", "ai_rpm", "up"):
        assert not is_command(text)


def test_every_link_leads_to_a_file() -> None:
    """Links between pages, and into the code."""
    for page in pages():
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(page)):
            if "://" not in target:
                assert ((PROJECT / page).parent / target).exists(), (page, target)
