"""The commands of README.md and docs/, as readers find them: blocks of shell, and code in the text that is a command.

A block marked ```sh is typed in a clone, one marked ```sh host on a host. `walk` gives a page's commands to the test
that types them, and fails where the test leaves one out.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from textwrap import dedent

from tests.infra.stacks import PROJECT

# A command starts with one of these, after settings of variables.
PROGRAMS = (
    *("ai-client", "/opt/ai-client/bin/ai-client", "ansible", "ansible-inventory", "ansible-playbook", "aws"),
    *(
        "curl",
        "git",
        "journalctl",
        "make",
        "pulumi",
        "python",
        "python3",
        "ssh",
        "ssh-keyscan",
        "sudo",
        "systemctl",
    ),
)
ON_HOSTS = ("ai-client", "/opt/ai-client/bin/ai-client", "journalctl", "sudo", "systemctl")

# These are named in the text without what they are to do.
WANT_WORDS = ("tools/env", "tools/setup", "tools/up", "tools/venv")
SHELL = ("sh", "sh host")

# These can't be run by a test, each for its reason: what the command is, or how it begins.
NOT_TYPED = {
    "make test": "it is what runs these tests",
    "make test-fast": "it runs a part of these tests",
    "make lint": "it is run before these tests, by the same target",
    "make format": "it rewrites the checkout; lint shows that it would change nothing",
    "make lock": "it resolves every package anew, and would bring versions that nobody has looked at",
    "make new-stack": "it is typed with a name, on the page on new stacks",
    "make bench": "it takes an hour of a quiet machine, and is never part of the tests",
    "make bench HOSTS=10": "the same on fewer hosts",
    "tools/venv bench": "it installs what is measured beside the project, which nothing else needs",
    "tools/packages nginx": "the same",
    ".venv/bin/python -m tests.bench.": "a part of the benchmark, which is never part of the tests",
    "tools/env --dev .venv/bin/python -m tests.bench.": "the same",
    "pulumi preview --stack production --policy-pack policy": "no engine that starts a pack is at hand; "
    "tests/policy/test_pack.py drives the pack over the engine's protocol",
}

# These are typed by another test than the rest of their page.
ELSEWHERE = {
    "ai-client usage --fleet": "tests/ansible/test_hosts_coordination.py",
    "tools/artefact/oci": "tests/tools/test_artefact_oci.py",
    "tools/probe/build > build/probe": "tests/ansible/test_probe_identity.py",
    "/opt/ai-client/bin/ai-client batch": "tests/client/coordination/test_batch_service.py",
    "/opt/ai-client/bin/ai-client fleet": "tests/ansible/test_hosts_coordination.py",
}

# These pages are typed whole by a test of their own way.
OWN_WAY = {
    "docs/examples/existing-program/README.md": "tests/program/test_component.py",
    "docs/how-to/node.md": "tests/ansible/test_hosts_node_page.py",
    "docs/how-to/providers.md": "tests/client/gateway/test_providers_page.py",
}

# Pages that tell nobody to type anything: what they name is there for another reason.
LISTS = {
    "docs/adr/": "decisions name what they are about",
    "docs/reference/client-file.md": "written from the code: what there is",
    "docs/reference/command-line.md": "written from the parser: every command that there is, which tests/client runs",
    "docs/reference/configuration.md": "written from the code: what there is",
    "docs/reference/events.md": "written from the code: what there is",
    "docs/reference/metrics.md": "written from the code: what there is",
    "docs/reference/role-variables.md": "written from the code: what there is",
    "docs/reference/simulator.md": "written from the code: what there is",
}

_FENCED = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_SETTING = re.compile(r"[A-Z_]+=\S*$")


@dataclass(frozen=True)
class Command:
    """Something that a page says to type.

    Attributes:
        text: the lines of a block, or one command.
        on_host: whether it is typed on a host, not in a clone.
        section: the heading that it stands below.
    """

    text: str
    on_host: bool
    section: str = ""

    def lines(self) -> list[str]:
        """Commands of a block, a line that ends in a backslash joined with the next."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def pages() -> list[str]:
    """README.md and every page below docs/, as paths in the project."""
    found = sorted((PROJECT / "docs").rglob("*.md"))
    return ["README.md", *(str(path.relative_to(PROJECT)) for path in found)]


@cache
def text_of(page: str) -> str:
    """A page as it is written."""
    return (PROJECT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language, which is all that stands behind the fence."""
    return [dedent(body) for _, info, body in _FENCED.findall(text_of(page)) if info.strip() == language]


@cache
def commands(page: str) -> tuple[Command, ...]:
    """Everything on a page that is to be typed, in its order; a command named again in the text counts once."""
    text = text_of(page)
    typed = set(_lines_of_blocks())
    found = [
        (m.start(), Command(dedent(m[3]), m[2].strip() == "sh host", _section(text, m.start())))
        for m in _FENCED.finditer(text)
        if m[2].strip() in SHELL
    ]
    prose = _FENCED.sub(lambda m: " " * len(m[0]), text)
    for match in _SPAN.finditer(prose):
        if is_command(match[1]) and match[1] not in typed:
            typed.add(match[1])
            section = _section(text, match.start())
            found.append((match.start(), Command(match[1], _program(match[1]) in ON_HOSTS, section)))
    return tuple(command for _, command in sorted(found, key=lambda entry: entry[0]))


def is_command(code: str) -> bool:
    """Whether code in the text is something to type, and not the name of a program or of a file."""
    words = code.split()
    while words and _SETTING.match(words[0]):
        words.pop(0)
    if not words:
        return False
    if words[0] in PROGRAMS or words[0].startswith(".venv/bin/"):
        return len(words) > 1
    path = PROJECT / words[0]
    is_tool = words[0].startswith("tools/") and path.is_file() and os.access(path, os.X_OK)
    return is_tool and (len(words) > 1 or words[0] not in WANT_WORDS)


def _section(text: str, position: int) -> str:
    before = re.findall(r"^#+ (.*)$", _FENCED.sub(lambda m: " " * len(m[0]), text[:position]), re.MULTILINE)
    return str(before[-1]) if before else ""


def _program(code: str) -> str:
    return next(word for word in code.split() if not _SETTING.match(word))


@cache
def _lines_of_blocks() -> frozenset[str]:
    return frozenset(
        line
        for page in pages()
        for language in SHELL
        for body in blocks(page, language)
        for line in Command(body, on_host=False).lines()
    )


@dataclass
class Walk:
    """A page on the way through its commands.

    Attributes:
        left: commands that are still to be typed.
    """

    left: list[Command] = field(default_factory=list)

    def take(self) -> str:
        """The next block or command."""
        return self.left.pop(0).text

    def rest(self) -> list[Command]:
        """All that is left."""
        taken, self.left = self.left, []
        return taken


@contextmanager
def walk(page: str, section: str | None = None) -> Iterator[Walk]:
    """Goes through a page or a section of it; at the end every command of it must have been taken."""
    walked = Walk([c for c in to_type(page) if section in (None, c.section)])
    assert walked.left, f"{page} has no command in {section}"
    yield walked
    assert [command.text for command in walked.left] == [], f"commands of {page} that no test types"


def to_type(page: str) -> list[Command]:
    """Commands of a page that its own test is to type."""
    is_list = page in OWN_WAY or any(page.startswith(part) for part in LISTS)
    return [] if is_list else [command for command in commands(page) if not is_exempt(command.text)]


def is_exempt(text: str) -> bool:
    """Whether a command is typed by no test, or by another than its page's."""
    command = text.strip()
    begins = any(command.startswith(part) for part in NOT_TYPED if part.endswith("."))
    return command in NOT_TYPED or begins or any(part in command for part in ELSEWHERE)
