"""The `command` plugin: one named by the user, the real one, or the project's stand-in."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import time
from pathlib import Path

from . import cache, golang
from .errors import EngineError
from .progress import Progress

NAME = "pulumi-resource-command"
VERSION = "1.2.1"
NAMED_BY = "PULUMI_COMMAND_PLUGIN"
OFFLINE = "AI_CLIENT_FLEET_OFFLINE"
DOWNLOAD_TIMEOUT_S = 20.0
REMEMBERED_S = 24 * 3600


def ensure(modules: Path, *, engine: Path, environ: dict[str, str], progress: Progress) -> Path | None:
    """The folder that belongs on PATH too, or None where the engine finds the real plugin by itself."""
    named = environ.get(NAMED_BY)
    if named:
        return _folder_of(Path(named), environ=environ)
    was_said = _is_remembered(environ)
    if is_installed(environ) or download(engine, environ=environ, progress=progress):
        return None
    if not was_said:  # the stand-in itself says what it is on every start
        progress.say(
            f"the command plugin {VERSION} is not here and cannot be downloaded: the project's stand-in serves"
            f" (name a real one with {NAMED_BY}=/path/to/{NAME})"
        )
    return stand_in(modules, environ=environ, progress=progress)


def is_installed(environ: dict[str, str]) -> bool:
    """Whether the real plugin is among the engine's own."""
    home = environ.get("PULUMI_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".pulumi")
    folder = Path(home) / "plugins" / f"resource-command-v{VERSION}"
    return (folder / NAME).is_file() and not folder.with_name(f"{folder.name}.partial").exists()


def _folder_of(named: Path, *, environ: dict[str, str]) -> Path:
    """A folder in which the user's binary has the name that the engine looks for."""
    if not (named.is_file() and os.access(named, os.X_OK)):
        remedy = f"name a {NAME} binary, or unset {NAMED_BY}"
        raise EngineError(f"{NAMED_BY}={named}", reason="is not an executable file", remedy=remedy)
    binary = named.resolve()
    place = hashlib.sha256(f"plugin {binary}".encode()).hexdigest()
    return cache.ensure(cache.root(environ) / place, make=lambda folder: (folder / NAME).symlink_to(binary))


def download(
    engine: Path, *, environ: dict[str, str], progress: Progress, timeout_s: float = DOWNLOAD_TIMEOUT_S
) -> bool:
    """Lets the engine download the real plugin; a failure is remembered for a day, so that not every start waits."""
    failed = _failed_download(environ)
    if environ.get(OFFLINE) == "1" or _is_remembered(environ):
        return False
    command = [str(engine / "pulumi"), "plugin", "install", "resource", "command", VERSION]
    with progress.step(f"downloading the command plugin {VERSION}, {timeout_s:.0f} s at most"):
        try:
            done = subprocess.run(
                command,
                env={**environ, "PULUMI_SKIP_UPDATE_CHECK": "1"},
                capture_output=True,
                stdin=subprocess.DEVNULL,
                check=False,
                timeout=timeout_s,
            )
            is_done = done.returncode == 0
        except subprocess.TimeoutExpired:
            is_done = False
    if not is_done:
        with contextlib.suppress(OSError):  # what is not remembered costs the next start a wait, no more
            failed.parent.mkdir(parents=True, exist_ok=True)
            failed.touch()
    return is_done


def _failed_download(environ: dict[str, str]) -> Path:
    return cache.root(environ) / f"no-download-of-command-{VERSION}"


def _is_remembered(environ: dict[str, str]) -> bool:
    """Whether a download has failed within a day."""
    failed = _failed_download(environ)
    return failed.exists() and time.time() - failed.stat().st_mtime < REMEMBERED_S


def stand_in(modules: Path, *, environ: dict[str, str], progress: Progress) -> Path:
    """The folder of the stand-in, built where it is not there yet."""
    program = golang.Program(module=modules / "command", package=".", name=NAME)
    go = golang.find(program.module, environ=environ)
    digest = golang.digest([program.module], go=go, recipe=(program.package, program.name, program.ldflags))

    def make(folder: Path) -> None:
        (folder / "bin").mkdir()
        with progress.step("building the stand-in for the command plugin") as step:
            golang.build(program, into=folder / "bin", go=go, environ=environ, step=step)

    entry = cache.root(environ) / digest
    return cache.ensure(entry, make=make, on_wait=lambda: progress.say("another build runs; waiting")) / "bin"
