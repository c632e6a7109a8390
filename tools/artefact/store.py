"""The folder that a build is put into: whole or not at all, by one builder at a time."""

import fcntl
import hashlib
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
# One a build, so that a build of other inputs, in another checkout, waits for nothing.
_LOCK_PREFIX = ".artefact-lock-"
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


def read_trees(out: Path, *, inputs_of: Callable[..., str]) -> dict[str, dict[str, Any]]:
    """Entries by tag of a build whose index says that it is of `inputs_of(tags=…)`; none where it is of others."""
    try:
        index: dict[str, Any] = json.loads((out / INDEX).read_bytes())
        trees = dict(index["trees"])
        return trees if index["inputs"] == inputs_of(tags=sorted(trees)) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def read_tree(out: Path, tree: dict[str, Any]) -> bytes | None:
    """A packed tree of a build; None where it is not what the index says."""
    try:
        content = (out / tree["file"]).read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == tree["sha256"] else None


def ensure(out: Path, *, inputs: str, fill: Callable[[Path], None], say: Callable[[str], None]) -> None:
    """Makes `out` a whole build of `inputs`; `fill` writes one into the empty folder that it is given.

    A build that is killed leaves a folder that the next one removes, and never a half-written `out`.
    """
    if is_current(out, inputs=inputs):
        os.utime(out)
        return
    _check_replaceable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with _locked(out, say=say):
        if is_current(out, inputs=inputs):
            return
        for abandoned in out.parent.glob(f"{_STAGE_PREFIX}{out.name}-*"):
            shutil.rmtree(abandoned)
        # A name of its own: a process that outlived its killed builder can't write into this one.
        stage = Path(tempfile.mkdtemp(prefix=f"{_STAGE_PREFIX}{out.name}-", dir=out.parent))
        try:
            fill(stage)
            stage.chmod(0o755)
            if out.exists():
                shutil.rmtree(out)
            stage.rename(out)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def drop_unused(cache: Path, *, now_s: float) -> list[Path]:
    """Removes what was last used longer than KEEP_UNUSED_S ago in `cache`; returns the builds among it.

    What another process builds or removes at this moment is left alone, and nobody waits for it.
    """
    removed = []
    for entry in sorted(cache.iterdir()):
        if not _is_old(entry, now_s=now_s):
            continue
        if (entry / INDEX).is_file() and _remove_unlocked(entry, now_s=now_s):
            removed.append(entry)
        elif entry.name.startswith(_STAGE_PREFIX):
            shutil.rmtree(entry, ignore_errors=True)
    return removed


def _is_old(entry: Path, *, now_s: float) -> bool:
    try:
        return now_s - entry.stat().st_mtime > KEEP_UNUSED_S
    except FileNotFoundError:
        return False


def _remove_unlocked(build: Path, *, now_s: float) -> bool:
    """Removes a build, unless somebody is at work on it or has used it meanwhile."""
    lock_path = _lock_path(build)
    with lock_path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if not _is_old(build, now_s=now_s):
            return False
        shutil.rmtree(build)
        lock_path.unlink(missing_ok=True)
    return True


def _check_replaceable(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() and not (out / INDEX).is_file():
        raise ArtefactError(
            f"{out} holds something else than an artefact; name an empty or new folder by --out"
        )


def _lock_path(out: Path) -> Path:
    return out.parent / f"{_LOCK_PREFIX}{out.name}"


@contextmanager
def _locked(out: Path, *, say: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock of one build. Its file goes with the build: a lock on one that is gone counts for nothing."""
    path = _lock_path(out)
    while True:
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for the same build by another process")
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_in_place(path, lock.fileno()):
                continue
            yield
            return


def _is_in_place(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
