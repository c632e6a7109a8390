"""Lists the licence of everything that hosts install, native code inside packages too.

Fails where one is outside the allow-list or missing, and names the package.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.artefact import spdx
from tools.artefact.build import build
from tools.artefact.components import Component, read_components
from tools.artefact.errors import ArtefactError
from tools.artefact.tags import DEFAULT_TAGS

# May be installed on a company's hosts beside its own programs; MPL-2.0 binds changes of its own files alone.
ALLOWED = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "MIT", "MIT-0"),
        *("MPL-2.0", "PSF-2.0", "Python-2.0", "Unicode-3.0", "Unicode-DFS-2016", "Unlicense", "Zlib"),
    }
)


@dataclass(frozen=True, order=True)
class Row:
    """One line of the list. `owner` is the package whose native module holds it, empty for a package."""

    owner: str
    name: str
    version: str
    licence: str | None


def rows(components: Iterable[Component]) -> list[Row]:
    """Every package and what is compiled into it, each once."""
    found = set()
    for component in components:
        found.add(Row("", component.name, component.version, component.licence))
        found.update(Row(component.name, e.name, e.version, e.licence) for e in component.embedded)
    return sorted(found)


def objection(row: Row, *, allowed: frozenset[str]) -> str | None:
    """Why this licence can't be taken, with the remedy; None where it can."""
    what = f"{row.name} {row.version}" + (f" (inside {row.owner})" if row.owner else "")
    if row.licence is None:
        return f"{what} names no licence; read its sources, then map its words in tools/artefact/spdx.py"
    try:
        against = spdx.refused(row.licence, allowed=allowed)
    except spdx.ExpressionError as error:
        return f"{what} has a licence that can't be read ({error}); map its words in tools/artefact/spdx.py"
    if not against:
        return None
    return (
        f"{what} is under {row.licence}, and {', '.join(sorted(against))} is not allowed; "
        "replace the package, or allow the licence in tools/artefact/licences.py"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tools/artefact/licences", description=__doc__)
    parser.add_argument(
        "trees", type=Path, nargs="*", help="packed trees (default: all, built where missing)"
    )
    options = parser.parse_args(argv)
    try:
        packed = options.trees or sorted(build(out=None, tags=DEFAULT_TAGS).glob("*.tar.gz"))
        found = rows(component for path in packed for component in read_components(path))
    except ArtefactError as error:
        print(f"licences: {error}", file=sys.stderr)
        return 1
    for row in found:
        print(f"{row.owner + '/' if row.owner else ''}{row.name}\t{row.version}\t{row.licence or 'unknown'}")
    objections = [text for row in found if (text := objection(row, allowed=ALLOWED))]
    for text in objections:
        print(f"licences: {text}", file=sys.stderr)
    return 1 if objections else 0


if __name__ == "__main__":
    sys.exit(main())
