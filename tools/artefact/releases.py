"""The releases that hosts can be pinned to: the builds that this machine keeps.

Without digests each build is listed: digest of its index, version, when it was last used, and its trees' digests.
With digests, of an index or of a tree, the folder of each is printed, in their order.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tools.artefact.build import cache_folder
from tools.artefact.store import INDEX


class Release(NamedTuple):
    """A build: its folder, the SHA-256 of its index, its version, and the SHA-256 of each tree by tag."""

    folder: Path
    digest: str
    version: str
    trees: dict[str, str]

    @property
    def used(self) -> str:
        """When it was last used, as a date."""
        return datetime.fromtimestamp(self.folder.stat().st_mtime, UTC).date().isoformat()


def releases(cache: Path) -> list[Release]:
    """Every build in the folder, the one used last first. What is no whole build is left out."""
    found = list(_read(cache))
    return sorted(found, key=lambda release: release.folder.stat().st_mtime, reverse=True)


def _read(cache: Path) -> Iterator[Release]:
    for path in sorted(cache.glob(f"*/{INDEX}")):
        try:
            content = path.read_bytes()
            index = json.loads(content)
            trees = {str(tag): str(tree["sha256"]) for tag, tree in index["trees"].items()}
            version = str(index["version"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        yield Release(path.parent, hashlib.sha256(content).hexdigest(), version, trees)


def find(known: Sequence[Release], digest: str) -> Release | None:
    """The build that a digest, of its index or of one of its trees, is of."""
    return next((one for one in known if digest == one.digest or digest in one.trees.values()), None)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Status 1 where a digest is of no build here; a found one counts as used."""
    parser = argparse.ArgumentParser(prog="tools/artefact/releases", description=__doc__)
    parser.add_argument("digest", nargs="*", help="SHA-256 of an index or of a tree")
    options = parser.parse_args(argv)
    known = releases(cache_folder(os.environ))
    if not options.digest:
        for release in known:
            print(f"{release.digest}  {release.version}  last used {release.used}")
            for tag, digest in sorted(release.trees.items()):
                print(f"  {digest}  {tag}")
        return 0
    found = {digest: find(known, digest) for digest in options.digest}
    for digest, build in found.items():
        if build is None:
            print(f"releases: {digest} is no build that this machine keeps", file=sys.stderr)
        else:
            os.utime(build.folder)
            print(build.folder)
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
