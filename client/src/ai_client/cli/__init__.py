"""The `ai-client` command. Each subcommand's module is imported only when it runs, so that `--version` costs 10 ms."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ai_client import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments in (["--version"], ["-V"]):
        print(f"ai-client {__version__}")
        return 0
    from ai_client.cli.terminal import guarded  # noqa: PLC0415  see the module's docstring

    return guarded(lambda: _run(arguments))


def _run(arguments: list[str]) -> int:
    from ai_client.cli.arguments import run  # noqa: PLC0415  Ctrl-C while it is imported is Ctrl-C too

    return run(arguments)
