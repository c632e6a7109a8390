"""The command line of tools/engine/build."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from . import engine, plugin
from .errors import EngineError
from .progress import Progress

MODULES = Path(__file__).resolve().parents[1]
DESCRIPTION = "Builds or finds the Pulumi engine, and prints what belongs in front of PATH."


def main(arguments: list[str]) -> int:
    """Prints one line on stdout, or one error on stderr; gives the exit code."""
    parser = argparse.ArgumentParser(prog="tools/engine/build", description=DESCRIPTION)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--plugin", action="store_true", help="provide the command plugin too")
    which.add_argument(
        "--stand-in", action="store_true", help="the stand-in for it, even where the real one is"
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    environ = dict(os.environ)
    try:
        folders = provide(environ, is_plugin_wanted=options.plugin, is_stand_in_wanted=options.stand_in)
    except EngineError as error:
        print(f"engine: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(os.pathsep.join(map(str, folders)))
    return 0


def provide(environ: dict[str, str], *, is_plugin_wanted: bool, is_stand_in_wanted: bool) -> list[Path]:
    """The folders that belong in front of PATH."""
    progress = Progress()
    folder = engine.ensure(MODULES, environ=environ, progress=progress)
    found = None
    if is_plugin_wanted:
        found = plugin.ensure(MODULES, engine=folder, environ=environ, progress=progress)
    elif is_stand_in_wanted:
        found = plugin.stand_in(MODULES, environ=environ, progress=progress)
    return [folder] if found is None else [folder, found]
