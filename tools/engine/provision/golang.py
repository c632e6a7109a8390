"""Finds Go and builds the programs of our modules with it."""

from __future__ import annotations

import hashlib
import os
import re
import select
import shutil
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from .errors import EngineError
from .progress import Step

USUAL_PLACE = "/usr/local/go/bin"
SHOWN_LINES = 15


@dataclass(frozen=True)
class Go:
    """A Go that is new enough: its path, and what its output depends on."""

    program: str
    version: str
    platform: str


@dataclass(frozen=True)
class Program:
    """One program: the module that pins it, the package in it, the name of its executable, linker flags."""

    module: Path
    package: str
    name: str
    ldflags: str = "-s -w"


def required_version(module: Path) -> tuple[int, ...]:
    """The version that the module's go.mod asks for."""
    match = re.search(r"^go (\d+(?:\.\d+)*)", (module / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise EngineError(str(module / "go.mod"), reason="has no `go` line", remedy="restore the file")
    return _numbers(match[1])


def find(module: Path, *, environ: dict[str, str], usual_place: str = USUAL_PLACE) -> Go:
    """The Go on PATH (or in its usual place) that can build `module`.

    An older Go that may fetch a newer toolchain itself (GOTOOLCHAIN, from 1.21 on) is good too.
    """
    required = required_version(module)
    wanted = ".".join(map(str, required))
    remedy = f"install Go {wanted} or newer and put it on PATH, or install the Pulumi CLI 3.200 or newer"
    program = shutil.which("go", path=os.pathsep.join([environ.get("PATH", ""), usual_place]))
    if program is None:
        raise EngineError("go", reason="not on PATH, and it builds the Pulumi engine (once)", remedy=remedy)
    found = _ask(program, folder=Path("/"), environ={**environ, "GOTOOLCHAIN": "local"})
    if found is None:
        raise EngineError(program, reason="does not answer to `go env`", remedy=remedy)
    if _numbers(found[0]) < required:
        fetched = _ask(program, folder=module, environ=environ) if _numbers(found[0]) >= (1, 21) else None
        if fetched is None or _numbers(fetched[0]) < required:
            reason = f"is {found[0]}, too old: the engine's modules need go{wanted}"
            raise EngineError(program, reason=reason, remedy=remedy)
        found = fetched
    return Go(program=program, version=found[0], platform=f"{found[1]}/{found[2]}")


def _ask(program: str, *, folder: Path, environ: dict[str, str]) -> list[str] | None:
    command = [program, "env", "GOVERSION", "GOOS", "GOARCH"]
    try:
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    except OSError:
        return None
    answer = done.stdout.split()
    return answer if done.returncode == 0 and len(answer) == 3 else None


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"(?:go)?(\d+(?:\.\d+)*)", version)
    return tuple(map(int, match[1].split("."))) if match else ()


def digest(modules: Iterable[Path], *, go: Go, recipe: object) -> str:
    """Names what comes out: the sources, the compiler, and how it is called."""
    total = hashlib.sha256(repr((recipe, go.version, go.platform)).encode())
    for module in modules:
        for path in sorted(module.glob("**/*")):
            if path.suffix in {".go", ".mod", ".sum"} and not path.name.endswith("_test.go"):
                total.update(f"\n{path.relative_to(module)} {path.stat().st_size}\n".encode())
                total.update(path.read_bytes())
    return total.hexdigest()


def build(program: Program, *, into: Path, go: Go, environ: dict[str, str], step: Step) -> None:
    """Builds one program into a folder; what Go compiled before is in its own cache."""
    command = [go.program, "build", "-v", "-trimpath", "-ldflags", program.ldflags]
    command += ["-o", str(into / program.name), program.package]
    build_environ = {**environ, "GOFLAGS": "-mod=readonly", "GOWORK": "off", "CGO_ENABLED": "0"}
    code, printed = _run(command, folder=program.module, environ=build_environ, step=step)
    if code != 0:
        raise _build_error(program, printed=printed)


def module_folder(module: Path, *, path: str, go: Go, environ: dict[str, str]) -> Path:
    """Where Go keeps the sources of a module that `module` pins."""
    command = [go.program, "list", "-m", "-f", "{{.Dir}}", path]
    done = subprocess.run(command, cwd=module, env=environ, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        reason = f"Go does not find the sources of {path}: {done.stderr.strip()}"
        raise EngineError(str(module), reason=reason, remedy="see that the Go module proxy can be reached")
    return Path(done.stdout.strip())


def _run(command: list[str], *, folder: Path, environ: dict[str, str], step: Step) -> tuple[int, str]:
    """Runs Go in a group of its own, so that an end of ours ends its compilers too."""
    with (
        _EndsHeldBack() as ends,
        subprocess.Popen(
            command,
            cwd=folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        output = cast("IO[bytes]", process.stdout)  # a pipe was asked for
        try:
            ends.let_go()
            printed = _read_all(output, step=step)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, printed.decode(errors="replace")


class _EndsHeldBack:
    """Keeps SIGINT and SIGTERM until Go's process is known: it runs before `Popen` has returned, and would be left."""

    def __enter__(self) -> _EndsHeldBack:
        self._came: list[int] = []
        self._usual = {
            number: signal.signal(number, lambda came, _: self._came.append(came))
            for number in (signal.SIGINT, signal.SIGTERM)
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        return self

    def let_go(self) -> None:
        """What came has its usual effect now."""
        usual, self._usual = self._usual, {}
        for number, handler in usual.items():
            signal.signal(number, handler)
        came, self._came = self._came, []
        for each in came:
            signal.raise_signal(each)

    def __exit__(self, *_: object) -> None:
        self.let_go()


def _read_all(output: IO[bytes], *, step: Step) -> bytes:
    """What Go prints until it ends, a line per package; shows how far it is."""
    printed = bytearray()
    while True:
        ready, _, _ = select.select([output], [], [], 1.0)
        if ready:
            chunk = os.read(output.fileno(), 65536)
            if not chunk:
                return bytes(printed)
            printed += chunk
        step.beat(f"{printed.count(10)} packages compiled")


def _build_error(program: Program, *, printed: str) -> EngineError:
    tail = "\n".join(printed.strip().splitlines()[-SHOWN_LINES:])
    remedy = "see what Go says above"
    if "no space left on device" in printed or "disk quota exceeded" in printed:
        remedy = (
            "free 3 GB, or name folders on another disk with XDG_CACHE_HOME, GOCACHE, GOMODCACHE and TMPDIR"
        )
    elif "dial tcp" in printed or "i/o timeout" in printed or "no such host" in printed:
        remedy = "see that the Go module proxy can be reached (GOPROXY), and try again"
    return EngineError(program.name, reason=f"could not be built:\n{tail}\n", remedy=remedy)
