"""How many playbook runs go side by side under one engine: each is an Ansible with forks and memory of its own.

The engine starts the runs of all groups at once. A run waits here before it has loaded anything. It holds its slot by a
lock, which ends with its process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from infra import engine_process

AT_ONCE = 8
_BETWEEN_TRIES_S = 0.2
_SUFFIX = ".slot"
_ENGINE_GONE = 143


def take(*, most: int = AT_ONCE, wait: Callable[[float], None] = time.sleep) -> int | None:
    """Waits for a slot of this process's engine; answers the descriptor that holds it, to be kept open.

    Ends this process where the engine has ended meanwhile: nobody waits for the run any more.

    None where nothing says whose slots they would be: without an engine, as in a run by hand, or without a home.
    """
    engine, folder = engine_process.identity(), state_folder()
    if engine is None or folder is None:
        return None
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _sweep(folder)
    while True:
        for number in range(most):
            held = _lock(folder / f"{engine}.{number}{_SUFFIX}")
            if held is not None:
                return held
        wait(_BETWEEN_TRIES_S)
        if engine_process.identity() != engine:
            raise SystemExit(_ENGINE_GONE)


def state_folder() -> Path | None:
    """Where runs of one engine find each other, by variables that commands inherit; None where there are none."""
    state, home = os.environ.get("XDG_STATE_HOME"), os.environ.get("HOME")
    if not state and not home:
        return None
    return (Path(state) if state else Path(str(home)) / ".local" / "state") / "ai-client-fleet" / "runs"


def _lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _sweep(folder: Path) -> None:
    """Removes the slots of engines that are gone."""
    for path in folder.glob(f"*{_SUFFIX}"):
        engine = path.name.partition(".")[0]
        pid = engine.partition("-")[0]
        if not pid.isdecimal() or engine != engine_process.identity_of(int(pid)):
            path.unlink(missing_ok=True)
