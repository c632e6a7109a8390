"""Every command of `ai-client`, found from its parser, and one real process of it."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ai_client.cli.arguments import build

Path_ = tuple[str, ...]

# What a command needs to be a whole one: a new command is added here, and then held to all of the rules.
WHOLE: dict[Path_, tuple[str, ...]] = {
    (): ("--health-check",),
    ("audit",): ("verify",),
    ("batch", "cancel"): ("requests",),
    ("batch", "fetch"): ("requests", "-o", "out.jsonl"),
    ("batch", "run"): ("in.jsonl", "-o", "out.jsonl"),
    ("batch", "serve"): ("--spool", "spool", "--once"),
    ("batch", "status"): (),
    ("batch", "submit"): ("in.jsonl",),
    ("bench",): ("--requests", "1"),
    ("chat",): ("hello",),
    ("completion",): ("bash",),
    ("config",): ("check",),
    ("fleet",): (),
    ("reload",): (),
    ("serve",): ("--port", "0"),
    ("simulate",): ("--port", "0"),
    ("usage",): (),
}


def parsers(
    parser: argparse.ArgumentParser | None = None, path: Path_ = ()
) -> Iterator[tuple[Path_, argparse.ArgumentParser]]:
    """Each command's words, and its parser; the program itself is `()`."""
    parser = parser or build()
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from parsers(inner, (*path, name))


ALL = dict(parsers())


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """That of a user of this folder, who has set nothing: no terminal's size, no language, no key."""
    return {"HOME": str(folder), "PATH": os.environ["PATH"], **settings}


def start(
    *arguments: str, folder: Path, stdout: int | IO[Any] = subprocess.PIPE, **settings: str
) -> subprocess.Popen[str]:
    """A process of its own session, so without a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "ai_client.cli", *arguments],
        cwd=folder,
        env=environment(folder, **settings),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(*arguments: str, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """To its end."""
    with start(*arguments, folder=folder, **settings) as process:
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def title(path: Sequence[str]) -> str:
    """For the names of tests."""
    return "-".join(path) or "ai-client"
