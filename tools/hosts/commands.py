"""Runs other programs: never with the caller's streams, always with a deadline."""

import os
import subprocess
from collections.abc import Mapping, Sequence

from tools.hosts.errors import HostsError

_KEPT = ("HOME", "http_proxy", "https_proxy", "no_proxy")
_SYSTEM = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")


def run(argv: Sequence[str], *, remedy: str, timeout_s: float = 60, stdin: str | None = None) -> str:
    """Runs a program to its end; returns its output, or raises with the last line it complained with."""
    try:
        done = subprocess.run(
            argv,
            input="" if stdin is None else stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env=child_environment(os.environ),
        )
    except FileNotFoundError as error:
        raise HostsError(argv[0], "is not installed", "install it and run again") from error
    except subprocess.TimeoutExpired as error:
        raise HostsError(" ".join(argv[:4]), f"no end after {timeout_s:.0f} s", remedy) from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise HostsError(" ".join(argv[:6]), said, remedy)
    return done.stdout


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What children may know: no more than they need, and messages in English."""
    kept = {key: environment[key] for key in _KEPT if key in environment}
    return {"LC_ALL": "C.UTF-8", "PATH": search_path(environment), **kept}


def search_path(environment: Mapping[str, str]) -> str:
    """The caller's path and, behind it, the folders that a user's own often lacks."""
    given = [folder for folder in environment.get("PATH", "").split(os.pathsep) if folder]
    return os.pathsep.join([*given, *(folder for folder in _SYSTEM if folder not in given)])
