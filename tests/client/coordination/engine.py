"""A real valkey-server or redis-server of a test's own, on a Unix socket in its folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("valkey-server", "redis-server")
_DEADLINE_S = 20.0


def programs() -> list[str]:
    """Both, from where `tools/packages` puts them, or from PATH; a bare name where none is, so that its users fail."""
    brought = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ai-client-fleet" / "bin"
    path = os.pathsep.join((str(brought), os.environ.get("PATH", "")))
    return [shutil.which(name, path=path) or name for name in PROGRAMS]


class RealEngine:
    """One process; `restart` ends it and starts another over the same folder."""

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        self.program = program
        self.folder = folder
        self.socket = folder / "engine.sock"
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> RealEngine:
        command = [
            self.program, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder),
            "--save", "", "--daemonize", "no", *self.options,
        ]  # fmt: skip
        log = (self.folder / "engine.log").open("ab")
        with log:
            try:
                self.process = subprocess.Popen(command, stdout=log, stderr=log)
            except FileNotFoundError:
                raise RuntimeError(
                    f"{self.program} is missing; run tools/packages, which brings it"
                ) from None
        deadline = time.monotonic() + _DEADLINE_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "engine.log").read_text())
        return self

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(1.0)
                link.connect(str(self.socket))
                link.sendall(b"PING\r\n")
                return bool(link.recv(64))
        except OSError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        self.socket.unlink(missing_ok=True)
