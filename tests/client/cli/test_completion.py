"""`ai-client completion`, in the shells themselves: every command's words are offered."""

from __future__ import annotations

import argparse
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client.cli.commands import ALL, environment, run
from tests.client.service_rig import program

pytestmark = pytest.mark.slow

Completer = Callable[[list[str]], set[str]]

# What the shells' functions are called with, and what they offer, printed.
_ZSH = """
compdef() {{ :; }}
_files() {{ print -l -- *(N); }}
compadd() {{ shift; print -l -- "$@"; }}
source {script}
words=({words}); CURRENT=$#words
_ai_client
"""
_BASH = """
source {script}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_ai_client; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
_FISH = """
source {script}
complete -C {line}
"""


@pytest.fixture(scope="module", params=["bash", "zsh", "fish"])
def complete(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Completer:
    """What one shell offers behind some words, the last of which is begun."""
    shell, folder = request.param, tmp_path_factory.mktemp(request.param)
    script = folder / f"completion.{shell}"
    script.write_text(run("completion", shell, folder=folder).stdout)
    (folder / "a-file").touch()
    start = {"bash": ["--norc", "-c"], "zsh": ["-f", "-c"], "fish": ["--no-config", "-c"]}[shell]
    text = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}[shell]

    def offered(words: list[str]) -> set[str]:
        said = text.format(
            script=shlex.quote(str(script)),
            words=" ".join(map(shlex.quote, words)),
            line=shlex.quote(" ".join(words)),
        )
        done = subprocess.run(
            [program(shell, package=shell), *start, said],
            cwd=folder,
            env=environment(folder),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stderr == ""
        # Fish writes a description behind a tab.
        return {line.partition("\t")[0] for line in done.stdout.splitlines()}

    return offered


def expected(path: tuple[str, ...]) -> set[str]:
    """Commands and choices that may follow, as the parser has them."""
    return {
        str(word)
        for action in ALL[path]._actions
        if not action.option_strings and action.choices is not None
        for word in action.choices
    }


def test_commands_and_choices_are_offered_behind_every_command(complete: Completer) -> None:
    """At each place where one may follow."""
    places = [path for path in ALL if expected(path)]
    assert len(places) > 4
    missing = {path: expected(path) - complete(["ai-client", *path, ""]) for path in places}
    assert {path: words for path, words in missing.items() if words} == {}


def test_options_are_offered_behind_every_command(complete: Completer) -> None:
    """All of them, by their long names."""
    for path, parser in ALL.items():
        options = {o for a in parser._actions for o in a.option_strings if o.startswith("--")}
        assert options - complete(["ai-client", *path, "--"]) == set(), path


def test_a_value_is_not_taken_for_a_command(complete: Completer) -> None:
    """`--config usage` names a file."""
    assert "fish" in complete(["ai-client", "--socket", "usage", "completion", ""])


def test_files_are_offered_where_an_option_wants_one(complete: Completer) -> None:
    """And nothing else there."""
    files = {
        action.option_strings[-1]
        for action in ALL["batch", "run"]._actions
        if action.type is Path and isinstance(action, argparse.Action) and action.option_strings
    }
    assert files
    for option in files:
        offered = complete(["ai-client", "batch", "run", option, ""])
        assert "a-file" in offered, option
        assert "--output" not in offered
