"""Builds the documentation as a site: README.md and docs/, with search, every link checked.

Each version has a folder of its own below the site's, so that older ones stay where they are; a menu leads from one to
the other. Any web server can show the folder: python3 -m http.server --directory build/site
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from packaging.version import InvalidVersion, Version

from tools.distribution.errors import ReleaseError
from tools.distribution.versions import version
from tools.pages.staged import SiteError, stage

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "docs/zensical.toml"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_REDIRECT = (
    "<!doctype html>\n<title>{0}</title>\n"
    '<meta http-equiv="refresh" content="0; url={0}/">\n<a href="{0}/">{0}</a>\n'
)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 with a line for each mistake; then the folder is as it was."""
    parser = argparse.ArgumentParser(
        prog="tools/site", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build/site", help="folder (default: build/site)")
    out = parser.parse_args(argv).out.absolute()
    try:
        name = version(ROOT)
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".site-", dir=out) as work:
            _put_in_place(build(ROOT, Path(work)), out / name)
        _write_menu(out)
    except (SiteError, ReleaseError) as exc:
        for line in str(exc).splitlines():
            print(f"site: {line}", file=sys.stderr)
        return 1
    except OSError as exc:
        print(
            f"site: {exc.filename} can't be written ({exc.strerror}); free it or use --out", file=sys.stderr
        )
        return 1
    print(out / name)
    return 0


def build(root: Path, work: Path) -> Path:
    """Builds the site of this checkout in an empty folder; returns where it is. Raises SiteError."""
    for name, content in stage(root).items():
        target = work / "docs" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    shutil.copy(root / CONFIG, work / "zensical.toml")
    generator = Path(sys.executable).with_name("zensical")
    if not generator.exists():
        raise SiteError(f"{generator} is missing; run 'tools/setup dev'")
    done = subprocess.run(
        [generator, "build", "--clean", "--strict"],
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SiteError(_complaints(done.stdout + done.stderr))
    return work / "site"


def _complaints(said: str) -> str:
    """What the generator complains about, without its own traceback."""
    text = _COLOUR.sub("", said).partition("Traceback")[0].strip()
    return f"{text}\ncorrect these in README.md or docs/"


def _put_in_place(built: Path, target: Path) -> None:
    if target.exists():
        target.rename(built.with_name("old"))
    built.rename(target)


def _write_menu(out: Path) -> None:
    """The list of versions that each version's menu reads, and a way from the top to the newest."""
    names = sorted(filter(_is_version, (path.name for path in out.iterdir())), key=Version, reverse=True)
    entries = [
        {"version": name, "title": name, "aliases": ["latest"] if name == names[0] else []} for name in names
    ]
    (out / "versions.json").write_text(json.dumps(entries) + "\n", encoding="utf-8")
    (out / "index.html").write_text(_REDIRECT.format(names[0]), encoding="utf-8")


def _is_version(name: str) -> bool:
    try:
        Version(name)
    except InvalidVersion:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
