"""A released Pulumi: downloaded in seconds where its site can be reached, held to a SHA-256 that is written here."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from . import cache
from .errors import EngineError
from .progress import Progress, Step

OFFLINE = "AI_CLIENT_FLEET_OFFLINE"
# A mirror of one's own; what it serves has the same digest or is not taken.
NAMED_BY = "AI_CLIENT_FLEET_PULUMI_SITE"
SITE = "https://get.pulumi.com/releases/sdk"
REMEMBERED_S = 24 * 3600
_CONNECT_TIMEOUT_S = 10.0
_LONGEST_S = 600.0
_MOST_BYTES = 400 << 20
_CHUNK_BYTES = 1 << 20
# Those of the engine and of Python; the archive has other languages' hosts, too.
PROGRAMS = (
    "pulumi",
    "pulumi-language-python",
    "pulumi-language-python-exec",
    "pulumi-resource-pulumi-python",
    "pulumi-analyzer-policy-python",
)
NEEDED = PROGRAMS[:3]


@dataclass(frozen=True)
class Release:
    """A version, and its archives by system and processor, each with its SHA-256."""

    version: str
    archives: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)


RELEASE = Release(
    "3.255.0",
    {
        ("Linux", "x86_64"): (
            "linux-x64",
            "cf559568e2c32f7fae56ea3de8ae5fa48973ba8c5aa9dd2b3dc0c8898fe50dba",
        ),
        ("Linux", "aarch64"): (
            "linux-arm64",
            "699fbc6ea848d997e9b3645487f108d27b1b55ec807c7576406131e6e080f0e3",
        ),
    },
)


class RefusedError(Exception):
    """What the site gave is not what was asked for."""


def ensure(environ: dict[str, str], *, progress: Progress, release: Release = RELEASE) -> Path | None:
    """The folder of the release, downloaded where it is not there yet; None where it can't be had.

    A site that can't be reached is left alone for a day, so that not every start waits for it.

    Raises:
        EngineError: there is no room for it.
    """
    system = os.uname()
    named = release.archives.get((system.sysname, system.machine))
    if named is None:
        return None
    platform, sha256 = named
    entry = cache.root(environ) / f"released-{sha256}"
    if entry.is_dir():
        return entry / "bin"
    failed = cache.root(environ) / f"no-download-of-pulumi-{release.version}"
    is_recent = failed.exists() and time.time() - failed.stat().st_mtime < REMEMBERED_S
    if environ.get(OFFLINE) == "1" or is_recent:
        return None
    url = f"{(environ.get(NAMED_BY) or SITE).rstrip('/')}/pulumi-v{release.version}-{platform}.tar.gz"
    if _fetch(url, entry, sha256=sha256, progress=progress, version=release.version):
        return entry / "bin"
    with contextlib.suppress(OSError):  # what is not remembered costs the next start a wait, no more
        failed.parent.mkdir(parents=True, exist_ok=True)
        failed.touch()
    return None


def _fetch(url: str, entry: Path, *, sha256: str, progress: Progress, version: str) -> bool:
    """Downloads and unpacks a release into `entry`; whether it was to be had, and was the one that is wanted."""

    def make(folder: Path) -> None:
        with progress.step(f"downloading Pulumi {version}") as step:
            _download(url, folder / "archive", sha256=sha256, step=step)
        _unpack(folder / "archive", folder / "bin")
        (folder / "archive").unlink()

    try:
        cache.ensure(entry, make=make, on_wait=lambda: progress.say("another download runs; waiting"))
    except (RefusedError, http.client.HTTPException, TimeoutError) as error:
        progress.say(f"Pulumi {version} is not taken from {url}: {error}")
    except EngineError as error:
        # An address that can't be reached is an error of the system's, too; of a folder it is the user's.
        if not isinstance(error.__cause__, ConnectionError | urllib.error.URLError):
            raise
        progress.say(f"Pulumi {version} can't be downloaded: {error.reason}")
    else:
        return True
    return False


def _download(url: str, path: Path, *, sha256: str, step: Step) -> None:
    if not url.startswith(("https://", "http://127.0.0.1:", "http://localhost:")):
        raise RefusedError(f"{NAMED_BY} has to begin with https://")
    digest = hashlib.sha256()
    end_s = time.monotonic() + _LONGEST_S
    with urllib.request.urlopen(url, timeout=_CONNECT_TIMEOUT_S) as answer, path.open("wb") as out:  # noqa: S310
        while chunk := _read(answer, end_s=end_s):
            digest.update(chunk)
            out.write(chunk)
            if out.tell() > _MOST_BYTES:
                raise RefusedError("it is longer than any release")
            step.beat(f"{out.tell() >> 20} MB")
    if digest.hexdigest() != sha256:
        raise RefusedError(f"its SHA-256 is {digest.hexdigest()}, not {sha256}; see who answers there")


def _read(answer: IO[bytes], *, end_s: float) -> bytes:
    if time.monotonic() > end_s:
        raise TimeoutError(f"it takes longer than {_LONGEST_S:.0f} s")
    return answer.read(_CHUNK_BYTES)


def _unpack(archive: Path, folder: Path) -> None:
    """Only programs that are wanted, by their own names: no path of the archive is followed."""
    folder.mkdir()
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                content = tar.extractfile(member) if member.isfile() and name in PROGRAMS else None
                if content is not None:
                    with (folder / name).open("wb") as out:
                        while chunk := content.read(_CHUNK_BYTES):
                            out.write(chunk)
                    (folder / name).chmod(0o755)
    except tarfile.TarError as error:
        raise RefusedError(f"it is no archive ({error})") from error
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise RefusedError(f"it lacks {', '.join(missing)}")
