"""The Pulumi CLI with its Python language host: one that is installed, a released one, or our own build."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from . import cache, golang, released
from .errors import EngineError
from .progress import Progress

CLI_VERSION = "3.274.1"
LANGUAGE_HOST_VERSION = "3.79.0"
OLDEST_CLI = (3, 200)
VERSION_FLAG = "-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v"
SDK = "github.com/pulumi/pulumi/sdk/v3"
LANGUAGE_HOST_PARTS = ("pulumi-language-python", "pulumi-language-python-exec")
# No package of these is a program, so Go does not install them: they are taken from the SDK's sources.
SCRIPTS = ("python/cmd/pulumi-language-python-exec", "python/dist/pulumi-resource-pulumi-python")


def ensure(modules: Path, *, environ: dict[str, str], progress: Progress) -> Path:
    """The folder that belongs on PATH."""
    found = installed(environ, progress=progress)
    if found is None and not is_built(modules, environ=environ):
        found = released.ensure(environ, progress=progress)
    return found if found is not None else built(modules, environ=environ, progress=progress)


def is_built(modules: Path, *, environ: dict[str, str]) -> bool:
    """Whether our own build is there already, so that nothing has to be had."""
    try:
        return _place(modules, environ=environ)[0].is_dir()
    except EngineError:
        return False


def installed(environ: dict[str, str], *, progress: Progress) -> Path | None:
    """The folder of a CLI on PATH that is recent enough and has its language host; our own builds don't count."""
    ours = cache.root(environ)
    folders = [f for f in environ.get("PATH", "").split(os.pathsep) if f and not Path(f).is_relative_to(ours)]
    path = os.pathsep.join(folders)
    program = shutil.which("pulumi", path=path)
    if program is None:
        return None
    folder = Path(program).resolve().parent
    version = _version(program, environ=environ)
    if version < OLDEST_CLI:
        progress.say(f"{program} is not used: older than {'.'.join(map(str, OLDEST_CLI))}, or not working")
        return None
    missing = [
        p for p in LANGUAGE_HOST_PARTS if not shutil.which(p, path=os.pathsep.join([str(folder), path]))
    ]
    if missing:
        progress.say(f"{program} is not used: {', '.join(missing)} is not beside it")
        return None
    return folder


def _version(program: str, *, environ: dict[str, str]) -> tuple[int, ...]:
    quiet = {**environ, "PULUMI_SKIP_UPDATE_CHECK": "1"}
    try:
        done = subprocess.run(
            [program, "version"], env=quiet, capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.match(r"v?(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if done.returncode == 0 and match else ()


def programs(modules: Path) -> list[golang.Program]:
    """What is built, and from which of our modules."""
    return [
        golang.Program(
            module=modules / "language",
            package=f"{SDK}/python/cmd/pulumi-language-python",
            name="pulumi-language-python",
            ldflags=VERSION_FLAG + LANGUAGE_HOST_VERSION,
        ),
        golang.Program(
            module=modules / "pulumi",
            package="github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
            name="pulumi",
            ldflags=VERSION_FLAG + CLI_VERSION,
        ),
    ]


def built(modules: Path, *, environ: dict[str, str], progress: Progress) -> Path:
    """The folder of our own build, made where it is not there yet."""
    wanted = programs(modules)
    cli = modules / "pulumi"
    entry, go = _place(modules, environ=environ)

    def make(folder: Path) -> None:
        (folder / "bin").mkdir()
        for program in wanted:
            with progress.step(f"building {program.name} from source, once; some minutes") as step:
                golang.build(program, into=folder / "bin", go=go, environ=environ, step=step)
        sdk = golang.module_folder(cli, path=SDK, go=go, environ=environ)
        for script in SCRIPTS:
            copied = Path(shutil.copyfile(sdk / script, folder / "bin" / Path(script).name))
            copied.chmod(0o755)

    return cache.ensure(entry, make=make, on_wait=lambda: progress.say("another build runs; waiting")) / "bin"


def _place(modules: Path, *, environ: dict[str, str]) -> tuple[Path, golang.Go]:
    """Where our own build is or will be, and the Go that makes it. Raises EngineError."""
    wanted = programs(modules)
    go = golang.find(modules / "pulumi", environ=environ)
    recipe = ([(p.package, p.name, p.ldflags) for p in wanted], SCRIPTS)
    return cache.root(environ) / golang.digest([p.module for p in wanted], go=go, recipe=recipe), go
