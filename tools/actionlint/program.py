"""Builds actionlint from the module beside this, once, and prints its path. It checks docs/ci/github."""

import os
import sys
from pathlib import Path

from provision import cache, golang
from provision.errors import EngineError
from provision.progress import Progress

HERE = Path(__file__).resolve().parent
PROGRAM = golang.Program(module=HERE, package="github.com/rhysd/actionlint/cmd/actionlint", name="actionlint")


def main() -> int:
    environ = dict(os.environ)
    try:
        print(built(environ) / PROGRAM.name)
    except EngineError as error:
        print(f"actionlint: {error}", file=sys.stderr)
        return 1
    return 0


def built(environ: dict[str, str]) -> Path:
    """The folder with the program, made where it is not there yet."""
    go = golang.find(HERE, environ=environ)
    digest = golang.digest([HERE], go=go, recipe=(PROGRAM.package, PROGRAM.ldflags))

    def make(folder: Path) -> None:
        with Progress().step("building actionlint") as step:
            golang.build(PROGRAM, into=folder, go=go, environ=environ, step=step)

    return cache.ensure(cache.root(environ) / digest, make=make)


if __name__ == "__main__":
    sys.exit(main())
