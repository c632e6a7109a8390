"""Builds everything that a release consists of into one folder. The same checkout gives the same bytes.

Wheel and sdist of ai-client, the Ansible collection, the trees that hosts install, an OCI image of the service, their
bill of materials, the documentation as a site, the notes from CHANGELOG.md, and SHA256SUMS over all of it.
"""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.artefact.archive import pack, tarred
from tools.artefact.build import build
from tools.artefact.errors import ArtefactError
from tools.artefact.oci import write_image
from tools.artefact.sbom import read_document
from tools.artefact.tags import DEFAULT_TAGS, OWN_TAGS
from tools.distribution.errors import ReleaseError
from tools.distribution.packages import build_collection, build_python
from tools.distribution.versions import is_dated, notes, version
from tools.pages import site
from tools.pages.staged import SiteError

ROOT = Path(__file__).resolve().parents[2]
SUMS = "SHA256SUMS"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 where something can't be built; then the folder is as it was."""
    parser = argparse.ArgumentParser(
        prog="tools/release", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder to write (default: dist)")
    out = parser.parse_args(argv).out.absolute()
    try:
        name = version(ROOT)
        _check_replaceable(out)
        with tempfile.TemporaryDirectory(prefix=".release-", dir=out.parent) as work:
            stage = Path(work) / "stage"
            stage.mkdir()
            _fill(stage, work=Path(work), name=name)
            _put_in_place(stage, out)
    except (ReleaseError, ArtefactError, SiteError) as exc:
        print(f"release: {exc}", file=sys.stderr)
        return 1
    except OSError as exc:
        print(
            f"release: {exc.filename} can't be written ({exc.strerror}); free it or use --out",
            file=sys.stderr,
        )
        return 1
    print((out / SUMS).read_text(), end="")
    if not is_dated(ROOT):
        print(
            f"release: {name} has no day in CHANGELOG.md yet: a candidate, not to be published",
            file=sys.stderr,
        )
    return 0


def _fill(stage: Path, *, work: Path, name: str) -> None:
    _say("wheel and sdist")
    build_python(ROOT, work=work, out=stage)
    _say("collection")
    build_collection(ROOT, work=work, out=stage)
    _say("trees for hosts")
    trees = build(out=None, tags=(*DEFAULT_TAGS, *OWN_TAGS))
    shutil.copytree(trees, stage / "artefact")
    _say("image")
    write_image(trees, work / "image")
    (stage / f"ai-client-{name}.oci.tar").write_bytes(tarred(_contents(work / "image")))
    _say("bill of materials")
    document = read_document(trees, lock=ROOT / "requirements/client.txt")
    (stage / f"ai-client-{name}.cdx.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    _say("documentation")
    (work / "site").mkdir()
    pages = _contents(site.build(ROOT, work / "site"))
    (stage / f"ai-client-fleet-docs-{name}.tar.gz").write_bytes(pack(pages).content)
    (stage / "NOTES.md").write_text(notes(ROOT), encoding="utf-8")
    (stage / SUMS).write_text("".join(f"{digest}  {file}\n" for file, digest in digests(stage).items()))


def _contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file by its name below the folder, but for SHA256SUMS."""
    files = _contents(folder).items()
    return {name: hashlib.sha256(content).hexdigest() for name, content in files if Path(name).name != SUMS}


def _check_replaceable(out: Path) -> None:
    """Nothing but an earlier release is replaced. Raises ReleaseError."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        return
    sums = out / SUMS
    known = {line.partition("  ")[2] for line in sums.read_text().splitlines()} if sums.is_file() else set()
    strange = sorted(digests(out).keys() - known) if out.is_dir() else [out.name]
    if strange:
        raise ReleaseError(f"{out} holds {strange[0]}, which is of no release; move it, or use --out")


def _put_in_place(stage: Path, out: Path) -> None:
    old = stage.with_name("old")
    if out.exists():
        out.rename(old)
    stage.rename(out)


def _say(text: str) -> None:
    print(f"release: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
