"""Builds the trees that hosts install: one for each CPython version and processor, from hashed wheels.

The last line on stdout is the folder with `<tag>.tar.gz` and `index.json`; progress goes to stderr.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tools.artefact import own_python, store
from tools.artefact.archive import pack
from tools.artefact.elf import glibc_min, is_elf
from tools.artefact.errors import ArtefactError
from tools.artefact.package import Package, read_package
from tools.artefact.tags import DEFAULT_TAGS, OWN_TAGS, AnyTag, OwnTag, Tag, parse_tag
from tools.artefact.tree import collect

ROOT = Path(__file__).resolve().parents[2]
_LOCK = "requirements/client.txt"
# Whatever decides the bytes of a tree, beside the client's own files.
_INPUT_FILES = (
    _LOCK,
    "requirements/bootstrap.txt",
    *(
        f"tools/artefact/{name}.py"
        for name in ("archive", "build", "elf", "own_python", "package", "tags", "tree")
    ),
)
_INSTALL_TIMEOUT_S = 900


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    options = _parser().parse_args(argv)
    try:
        tags = [*(options.tag or DEFAULT_TAGS), *(OWN_TAGS if options.own else ())]
        folder = built(out=options.out, tags=tags) if options.if_built else build(out=options.out, tags=tags)
        print(folder or "")
    except ArtefactError as error:
        print(f"artefact: {error}", file=sys.stderr)
        return 1
    return 0


def build(*, out: Path | None, tags: Sequence[AnyTag]) -> Path:
    """Builds what is missing and returns the folder; `out` None is a folder in the user's cache."""
    package = read_package(ROOT / "client")
    tags = sorted(set(tags), key=str)
    inputs = inputs_digest(package, tags=tags)
    folder = out.absolute() if out else cache_folder(os.environ) / inputs
    if not store.is_current(folder, inputs=inputs):
        _say(f"building {', '.join(map(str, tags))}")
    cache = folder.parent if out is None else None
    fill = partial(_fill, package=package, tags=tags, inputs=inputs, cache=cache)
    store.ensure(folder, inputs=inputs, fill=fill, say=_say)
    if out is None:
        store.drop_unused(folder.parent, now_s=time.time())
    return folder


def built(*, out: Path | None, tags: Sequence[AnyTag]) -> Path | None:
    """The folder of the build, which counts as used; None where it was not built yet."""
    inputs = inputs_digest(read_package(ROOT / "client"), tags=sorted(set(tags), key=str))
    folder = out.absolute() if out else cache_folder(os.environ) / inputs
    if not store.is_current(folder, inputs=inputs):
        return None
    os.utime(folder)
    return folder


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where builds are kept, each in a folder named by its inputs."""
    base = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "ai-client-fleet" / "artefacts"


def inputs_digest(package: Package, *, tags: Iterable[AnyTag | str]) -> str:
    """A digest of everything that decides the trees' bytes, and of nothing else (no path, no time)."""
    digest = hashlib.sha256(" ".join(map(str, tags)).encode())
    contents = {name: (ROOT / name).read_bytes() for name in _INPUT_FILES} | package.files
    for name, content in sorted(contents.items()):
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _fill(
    stage: Path, *, package: Package, tags: Sequence[AnyTag], inputs: str, cache: Path | None = None
) -> None:
    """Builds the trees that no other build in `cache` has from the same sources."""
    trees = _kept(cache, stage=stage, package=package, tags=tags) if cache else {}
    missing = [tag for tag in tags if str(tag) not in trees]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        built = pool.map(lambda tag: _build_tree(stage, tag=tag, package=package), missing)
        trees |= dict(zip(map(str, missing), built, strict=True))
    index = {"version": package.version, "inputs": inputs, "trees": trees}
    (stage / store.INDEX).write_text(json.dumps(index, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _kept(cache: Path, *, stage: Path, package: Package, tags: Sequence[AnyTag]) -> dict[str, dict[str, Any]]:
    """Trees of other builds from the same sources, copied into `stage`: a tree is the same in every set of trees."""
    wanted = set(map(str, tags))
    trees: dict[str, dict[str, Any]] = {}
    for folder in sorted(entry.parent for entry in cache.glob(f"*/{store.INDEX}")):
        held = store.read_trees(folder, inputs_of=partial(inputs_digest, package))
        for name, tree in held.items():
            content = store.read_tree(folder, tree) if name in wanted - trees.keys() else None
            if content is not None:
                (stage / tree["file"]).write_bytes(content)
                trees[name] = tree
    return trees


def _build_tree(stage: Path, *, tag: AnyTag, package: Package) -> dict[str, Any]:
    """Writes `<tag>.tar.gz` and returns its entry in the index."""
    started_s = time.monotonic()
    plain = tag.like if isinstance(tag, OwnTag) else tag
    with TemporaryDirectory(dir=stage) as target:
        _install(Path(target), tag=plain)
        files = collect(Path(target), tag=plain, client=package.files)
    # Its own C library comes with the interpreter.
    needs = None if isinstance(tag, OwnTag) else glibc_min(filter(is_elf, files.values()))
    own = own_python.fetch(tag) if isinstance(tag, OwnTag) else None
    archive = pack(files | (own.files if own else {}), programs=own_python.PROGRAMS)
    name = f"{tag}.tar.gz"
    (stage / name).write_bytes(archive.content)
    _say(f"{tag}: {len(archive.content) / 1e6:.1f} MB in {time.monotonic() - started_s:.1f} s")
    entry = {
        "file": name,
        "sha256": archive.sha256,
        "tar_sha256": archive.tar_sha256,
        "size": len(archive.content),
        "glibc_min": needs,
    }
    return entry | ({"suite": own_python.SUITE, "packages": own.packages} if own else {})


def _install(target: Path, *, tag: Tag) -> None:
    """The locked wheels for `tag`, every hash checked; nothing is compiled or run."""
    uv = ROOT / ".venv" / "bin" / "uv"
    command = [
        *(str(uv), "pip", "install", "--quiet", "--python", sys.executable, "--target", str(target)),
        *("--python-version", tag.python_version, "--python-platform", tag.python_platform),
        *("--require-hashes", "--only-binary", ":all:", "--requirements", str(ROOT / _LOCK)),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S)
    except FileNotFoundError as error:
        raise ArtefactError(f"{uv} is missing; run tools/setup control") from error
    except subprocess.TimeoutExpired as error:
        raise ArtefactError(
            f"{tag}: the wheels did not arrive within {_INSTALL_TIMEOUT_S} s; is the package index reachable?"
        ) from error
    except subprocess.CalledProcessError as error:
        raise ArtefactError(
            f"{tag}: the wheels of {_LOCK} could not be installed; is the package index reachable, and has "
            f"each package a wheel for {tag.python_platform}? uv says: {error.stderr.strip()}"
        ) from error


def _say(text: str) -> None:
    print(f"artefact: {text}", file=sys.stderr, flush=True)


def _tag_argument(text: str) -> AnyTag:
    try:
        return parse_tag(text)
    except ArtefactError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/artefact/build", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for the build (default: one in the user's cache)")
    parser.add_argument(
        "--own",
        action="store_true",
        help="trees that bring their own interpreter, too (ai_python: own, auto)",
    )
    parser.add_argument(
        "--if-built",
        action="store_true",
        help="build nothing: print the folder, or an empty line where there is none",
    )
    parser.add_argument(
        *("--tag", "-t"),
        type=_tag_argument,
        nargs="+",
        metavar="TAG",
        help=f"trees to build (default: {' '.join(map(str, DEFAULT_TAGS))})",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
