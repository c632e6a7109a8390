"""Hosts that tests boot are gone with the run, also where who booted them is ended before it can remove them.

The process that shares the tests out gives the others some seconds when it is interrupted. Each of them notes its
fleets in a folder of the run; the first process removes the hosts of those that are still noted at the end.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools.hosts.places import FOLDER_VARIABLE

_ROOT = Path(__file__).resolve().parents[1]
_RUN_VARIABLE = "AI_CLIENT_FLEET_TESTS_RUN"


@contextlib.contextmanager
def removed_at_the_end(fleet: str, folder: Path | None = None) -> Iterator[None]:
    """Without what an earlier run left of a fleet's hosts, and without them afterwards; `folder` keeps them."""
    order = json.dumps({"fleet": fleet, "folder": None if folder is None else str(folder)})
    with _noted(order):
        _purge(order)
        try:
            yield
        finally:
            _purge(order)


def begin_run() -> bool:
    """Whether this process is the run's first one, which then calls `end_run`."""
    if _RUN_VARIABLE in os.environ:
        return False
    os.environ[_RUN_VARIABLE] = tempfile.mkdtemp(prefix="tests-run-")
    return True


def end_run() -> None:
    """Removes what the other processes of the run could not."""
    folder = Path(os.environ.pop(_RUN_VARIABLE))
    for note in folder.iterdir():
        _purge(note.read_text(encoding="utf-8"))
    shutil.rmtree(folder)


@contextlib.contextmanager
def _noted(order: str) -> Iterator[None]:
    run = os.environ.get(_RUN_VARIABLE)
    if run is None:
        yield
        return
    with tempfile.NamedTemporaryFile("w", dir=run, delete=False, encoding="utf-8") as note:
        note.write(order)
    yield
    Path(note.name).unlink()


def _purge(order: str) -> None:
    asked = json.loads(order)
    own = {} if asked["folder"] is None else {FOLDER_VARIABLE: asked["folder"]}
    done = subprocess.run(
        [sys.executable, "-m", "tools.hosts", "purge"],
        cwd=_ROOT,
        env={**os.environ, **own},
        input=json.dumps({"fleet": asked["fleet"]}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
