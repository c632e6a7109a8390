"""The configuration of somebody who has none: folders of their own, no root, no file to write first."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ai_client.settings import (
    BatchSettings,
    CachingSettings,
    GatewaySettings,
    LoadedKey,
    LoggingSettings,
    MonitoringSettings,
    Settings,
    TenantSettings,
)

NAME = "ai-client"
SIMULATED = "simulated"
# Of Linux, without its final null.
MAX_SOCKET_PATH_BYTES = 107
SIMULATED_KEY = LoadedKey("hs_test_simulated", source="the built-in simulator")


@dataclass(frozen=True, slots=True)
class PersonalHome:
    """Folders that are there, and the user's token for callers over TCP.

    What the simulator answered has a ledger of its own: it cost nothing.
    """

    state: Path
    token_file: Path
    tenant: TenantSettings
    is_simulated: bool


def state_home(environment: Mapping[str, str]) -> Path:
    """Where what must survive lies: `~/.local/state/ai-client`, or below `XDG_STATE_HOME`."""
    return _base(environment, "XDG_STATE_HOME", ".local/state") / NAME


def settings(environment: Mapping[str, str]) -> Settings:
    """The defaults, in the folders that the XDG base directory specification gives to one user.

    Metrics and status page take any free port: 9090 may be a Prometheus's on a machine of many uses.
    """
    state = state_home(environment)
    runtime = environment.get("XDG_RUNTIME_DIR")
    sockets = Path(runtime) / NAME if runtime else state
    if len(os.fsencode(sockets / "gateway.sock")) > MAX_SOCKET_PATH_BYTES:
        # A home with a long path: a short folder of this user's alone, found again by every command.
        digest = hashlib.sha256(os.fsencode(state)).hexdigest()[:8]
        # Not TMPDIR, which may be as long.
        sockets = Path("/tmp") / f"{NAME}-{os.getuid()}-{digest}"  # noqa: S108 - its owner is checked
    return Settings(
        caching=CachingSettings(cache_dir=_base(environment, "XDG_CACHE_HOME", ".cache") / NAME),
        logging=LoggingSettings(log_dir=state / "log"),
        gateway=GatewaySettings(socket=sockets / "gateway.sock"),
        monitoring=MonitoringSettings(metrics_port=0),
        batch=BatchSettings(spool_dir=state / "spool"),
    )


def _base(environment: Mapping[str, str], variable: str, below_home: str) -> Path:
    given = environment.get(variable, "")
    # The specification: a relative path is to be ignored.
    return Path(given) if given.startswith("/") else Path(environment.get("HOME") or "/") / below_home


def prepare(environment: Mapping[str, str], *, is_simulated: bool) -> PersonalHome:
    """Make the folders, and the token where there is none yet; only this user may read them. Raises OSError."""
    chosen, home = settings(environment), state_home(environment)
    state = home / SIMULATED if is_simulated else home
    for folder in (
        home,
        state,
        chosen.caching.cache_dir,
        chosen.logging.log_dir,
        chosen.gateway.socket.parent,
    ):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_own(chosen.gateway.socket.parent)
    token_file = home / "token"
    tenant = TenantSettings(name="me", token_sha256=hashlib.sha256(_token(token_file).encode()).hexdigest())
    return PersonalHome(state, token_file, tenant, is_simulated)


def _check_own(folder: Path) -> None:
    """A folder in a place that all users share may have been put there by another one. Raises OSError."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "is another user's, or a link", str(folder))


def _token(path: Path) -> str:
    """The token in a file. Of two that make it at once the first wins. Raises OSError."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secrets.token_urlsafe(32))
        os.link(partial, path)
    except FileExistsError:
        pass
    finally:
        partial.unlink()
    return path.read_text(encoding="utf-8").strip()
