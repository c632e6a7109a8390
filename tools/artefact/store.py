"""The folder that a build is put into: whole or not at all, by one builder at a time."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.artefact.errors import ArtefactError

INDEX = "index.json"
# A cached build that nobody asked for in this time is removed by the next build.
KEEP_UNUSED_S = 14 * 24 * 3600
_LOCK = ".artefact-lock"
_STAGE_PREFIX = ".artefact-partial-"


def is_current(out: Path, *, inputs: str) -> bool:
    """Whether `out` holds a whole build of these inputs: its index says so and every file has its size."""
    try:
        index: dict[str, Any] = json.loads((out / INDEX).read_bytes())
        trees = index["trees"].values()
        return bool(index["inputs"] == inputs) and all(
            (out / tree["file"]).stat().st_size == tree["size"] for tree in trees
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def ensure(out: Path, *, inputs: str, fill: Callable[[Path], None], say: Callable[[str], None]) -> None:
    """Makes `out` a whole build of `inputs`; `fill` writes one into the empty folder that it is given.

    A build that is killed leaves a folder that the next one removes, and never a half-written `out`.
    """
    if is_current(out, inputs=inputs):
        os.utime(out)
        return
    _check_replaceable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with _locked(out.parent, say=say):
        if is_current(out, inputs=inputs):
            return
        for abandoned in out.parent.glob(f"{_STAGE_PREFIX}*"):
            shutil.rmtree(abandoned)
        # A name of its own: a process that outlived its killed builder can't write into this one.
        stage = Path(tempfile.mkdtemp(prefix=_STAGE_PREFIX, dir=out.parent))
        try:
            fill(stage)
            stage.chmod(0o755)
            if out.exists():
                shutil.rmtree(out)
            stage.rename(out)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def drop_unused(cache: Path, *, now_s: float) -> list[Path]:
    """Removes the builds in `cache` that were last used longer than KEEP_UNUSED_S ago; returns them."""
    with _locked(cache, say=lambda _: None):
        old = [entry for entry in sorted(cache.iterdir()) if _is_unused(entry, now_s=now_s)]
        for entry in old:
            shutil.rmtree(entry)
    return old


def _is_unused(entry: Path, *, now_s: float) -> bool:
    return (entry / INDEX).is_file() and now_s - entry.stat().st_mtime > KEEP_UNUSED_S


def _check_replaceable(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() and not (out / INDEX).is_file():
        raise ArtefactError(
            f"{out} holds something else than an artefact; name an empty or new folder by --out"
        )


@contextmanager
def _locked(folder: Path, *, say: Callable[[str], None]) -> Iterator[None]:
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build in the same folder")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
