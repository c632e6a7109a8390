"""The service's own CPython: Debian's packages of one release, with the C library that they were built for.

An interpreter that brings its C library runs on any Linux of its processor, however old or new the host's. apt fetches
the packages and checks them by the archive's signature; nothing of them is installed, compiled or run here.
"""

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tools.artefact.errors import ArtefactError
from tools.artefact.tags import OWN_MINOR, OwnTag

SUITE = "trixie"
"""Its packages change with point releases alone: the same day's builds of two machines are the same."""
PYTHON = f"3.{OWN_MINOR}"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}
PACKAGES = (
    *(f"python{PYTHON}-minimal", f"libpython{PYTHON}-minimal", f"libpython{PYTHON}-stdlib"),
    *("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libssl3t64", "libzstd1", "libffi8"),
    *("liblzma5", "libbz2-1.0", "libsqlite3-0", "libuuid1"),
)
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TIMEOUT_S = 600
_TARGET_FORM = "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)"
# For terminals and databases that no host of a service has; some bring licences that bind programs beside them.
_LEFT_OUT = re.compile(r"(?:readline|_curses|_curses_panel|_dbm|_gdbm|_tkinter|nis)\.")
_DEBUGGING = re.compile(
    r"lib(?:BrokenLocale|c_malloc_debug|memusage|pcprofile|thread_db|nss_hesiod|nss_compat|nsl)\."
)
# Found by where it lies, through whatever link: a process keeps to its release. Children start the same way.
_STARTER = b"""\
#!/bin/sh
# Starts this interpreter on the C library beside it, whatever the host has.
here=$(CDPATH='' cd -P -- "${0%/*}/.." && pwd)
# Its OpenSSL looks where Debian has the trusted certificates; other distributions have them elsewhere.
if [ -z "${SSL_CERT_FILE:-}" ] && [ ! -e /usr/lib/ssl/certs ]; then
    for bundle in /etc/pki/tls/certs/ca-bundle.crt /var/lib/ca-certificates/ca-bundle.pem \
        /etc/ssl/ca-bundle.pem /etc/ssl/certs/ca-certificates.crt; do
        [ -r "$bundle" ] && export SSL_CERT_FILE="$bundle" && break
    done
fi
exec "$here/lib/ld.so" --inhibit-cache --library-path "$here/lib" --argv0 "$here/bin/python3" "$here/bin/python" "$@"
"""


PROGRAMS = frozenset({"python/bin/python3", "python/bin/python", "python/lib/ld.so"})


class OwnPython(NamedTuple):
    """The files by name below `python/`, and where they come from: versions by Debian package."""

    files: dict[str, bytes]
    packages: dict[str, str]


def fetch(tag: OwnTag, *, mirror: str | None = None) -> OwnPython:
    """Fetches and lays out the interpreter for a processor. Raises ArtefactError."""
    if shutil.which("apt-get") is None or not _KEYRING.is_file():
        raise ArtefactError(
            "the own interpreter is made from Debian's packages, and this machine has no apt-get or no "
            f"{_KEYRING}; build it on Debian or Ubuntu (package debian-archive-keyring)"
        )
    with TemporaryDirectory(prefix="own-python-") as folder:
        debs = _download(Path(folder), tag=tag, mirror=mirror or debian_mirror())
        files: dict[str, bytes] = {}
        for deb in debs:
            files |= _laid_out(_members(deb), tag=tag)
    files["bin/python3"] = _STARTER
    for needed in ("bin/python", "lib/ld.so", "lib/libc.so.6", f"lib/python{PYTHON}/os.py"):
        if needed not in files:
            raise ArtefactError(f"Debian's packages of {SUITE} hold no {needed}; PACKAGES is out of date")
    return OwnPython({f"python/{name}": content for name, content in files.items()}, _versions(debs))


def debian_mirror() -> str:
    """The mirror that this machine's own apt uses for Debian."""
    listed = _run(["apt-get", "indextargets", "--format", _TARGET_FORM, "Identifier: Packages"])
    for line in listed.decode().splitlines():
        *kind, uri = line.split("|")
        if kind == ["Debian", "Debian", "main"] and uri.startswith(("http:", "https:")):
            return uri
    raise ArtefactError("apt on this machine knows no mirror of Debian; name one with --mirror")


def _download(folder: Path, *, tag: OwnTag, mirror: str) -> list[Path]:
    """The packages, by an apt with a state of its own: nothing of this machine's changes."""
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "archives" / "partial").mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {mirror} {SUITE} main\n")
    settings = {
        "APT::Architecture": ARCHITECTURES[tag.machine],
        "APT::Architectures": ARCHITECTURES[tag.machine],
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Dir::Etc::sourcelist": str(folder / "sources.list"),
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": str(folder / "lists"),
        "Dir::State::status": str(folder / "status"),
        "Dir::Cache": str(folder),
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    _run(["apt-get", *options, "update", "-qq"])
    _run(["apt-get", *options, "download", "-qq", *PACKAGES], cwd=folder)
    return sorted(folder.glob("*.deb"))


def _members(deb: Path) -> Iterator[tuple[PurePosixPath, bytes | str]]:
    """Files with their bytes, and links with their targets."""
    packed = _run(["dpkg-deb", "--fsys-tarfile", str(deb)])
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if content:
                yield PurePosixPath(member.name.removeprefix("./")), content.read()
            elif member.issym():
                yield PurePosixPath(member.name.removeprefix("./")), member.linkname


def _laid_out(members: Iterator[tuple[PurePosixPath, bytes | str]], *, tag: OwnTag) -> dict[str, bytes]:
    """What of a package is part of the interpreter, by its name there."""
    found = dict(members)
    places = {path: _place(path, tag=tag) for path in found}
    # A library is looked for by the name of its link; a link that lies elsewhere, as arm64's to its loader, names none.
    linked = {path.parent / held for path, held in found.items() if isinstance(held, str) and places[path]}
    files: dict[str, bytes] = {}
    for path, held in found.items():
        name = places[path]
        content = found.get(path.parent / held) if isinstance(held, str) else held
        if name and isinstance(content, bytes) and (path not in linked or path.suffix == ".py"):
            files[name] = content
    return files


def _place(path: PurePosixPath, *, tag: OwnTag) -> str | None:
    """Where a package's file lies in the interpreter; None where it is not part of it."""
    if path == PurePosixPath(f"usr/bin/python{PYTHON}"):
        return "bin/python"
    if path.is_relative_to(f"usr/lib/python{PYTHON}"):
        is_kept = path.suffix != ".pyc" and not _LEFT_OUT.match(path.name)
        return f"lib/{path.relative_to('usr/lib')}" if is_kept else None
    is_library = ".so" in path.name and not _DEBUGGING.match(path.name)
    if path.parent == PurePosixPath(f"usr/lib/{tag.machine}-linux-gnu") and is_library:
        return "lib/ld.so" if path.name == _LOADERS[tag.machine] else f"lib/{path.name}"
    return None


def _versions(debs: list[Path]) -> dict[str, str]:
    return dict(deb.name.split("_")[:2] for deb in debs)


def _run(argv: list[str], *, cwd: Path | None = None) -> bytes:
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ArtefactError(
            f"{argv[0]} did not end within {_TIMEOUT_S} s; is the mirror reachable?"
        ) from error
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())[-400:]
        raise ArtefactError(
            f"the own interpreter's packages could not be fetched: {said}; is the mirror reachable?"
        )
    return done.stdout
