"""Fakes of Go and of an installed Pulumi CLI, so that tools/engine/build is tested without minutes of compiling."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]

# Answers as Go does; `build` writes its -o file, after it said so and, where a gate is there, has waited at it.
GO = """#!/bin/sh
folder=$(dirname "$0")
echo "$*" >>"$folder/calls"
case $1 in
env) cat "$folder/answer" ;;
list) echo "$folder/sdk" ;;
build)
    while [ "$1" != -o ]; do shift; done
    printf '#!/bin/sh\\n' >"$2"
    chmod 755 "$2"
    if [ -p "$folder/gate" ]; then echo $$ >>"$folder/waiting"; read -r _ <"$folder/gate"; fi
    if [ -e "$folder/failure" ]; then cat "$folder/failure"; exit 1; fi
    ;;
esac
"""

PULUMI = """#!/bin/sh
folder=$(dirname "$0")
echo "$*" >>"$folder/calls"
case $1 in
version) cat "$folder/version" ;;
plugin) exec sh "$folder/install" ;;
esac
"""


def write_program(path: Path, text: str) -> Path:
    """An executable with this text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Machine:
    """A machine with nothing on it but a shell, Python, and what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.go_folder = folder / "go"
        self.pulumi_folder = folder / "installed"
        self.home = folder / "home"
        self.home.mkdir()
        self.environ = {
            "PATH": os.pathsep.join([str(self.pulumi_folder), str(self.go_folder), "/usr/bin", "/bin"]),
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.cache),
            "XDG_STATE_HOME": str(folder / "state"),
            "AI_CLIENT_FLEET_OFFLINE": "1",
        }

    def add_go(self, version: str = "go1.99.0") -> Machine:
        """A Go that calls itself so."""
        write_program(self.go_folder / "go", GO)
        (self.go_folder / "answer").write_text(f"{version}\nlinux\namd64\n")
        for script in ("cmd/pulumi-language-python-exec", "dist/pulumi-resource-pulumi-python"):
            write_program(self.go_folder / "sdk/python" / script, "#!/bin/sh\n")
        return self

    def add_pulumi(self, version: str, *, has_language_host: bool = True, install: str = "exit 1") -> Machine:
        """An installed CLI that calls itself so, and whose `plugin install` does what the script says."""
        write_program(self.pulumi_folder / "pulumi", PULUMI)
        (self.pulumi_folder / "version").write_text(f"{version}\n")
        (self.pulumi_folder / "install").write_text(install)
        if has_language_host:
            for name in ("pulumi-language-python", "pulumi-language-python-exec"):
                write_program(self.pulumi_folder / name, "#!/bin/sh\n")
        return self

    def go_calls(self, word: str) -> int:
        """How often Go was started with this first word."""
        calls = (self.go_folder / "calls").read_text().splitlines()
        return sum(call.split()[0] == word for call in calls)

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Starts tools/engine/build on this machine."""
        return subprocess.Popen(
            [sys.executable, CHECKOUT / "tools/engine/build", *options],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Whoever runs the tests in the background ignores it, and a child would too.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def build(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Runs tools/engine/build on this machine."""
        with self.start(*options) as process:
            stdout, stderr = process.communicate(timeout=60)
        return subprocess.CompletedProcess([], process.returncode, stdout, stderr)
