"""What this machine must have: root, a few programs (installed where that is possible), enough inotify instances."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.hosts.commands import run
from tools.hosts.errors import HostsError
from tools.hosts.files import locked

PACKAGE_OF = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "mount": "mount",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
TO_REMOVE = ("ip", "mount")
TO_MAKE = (*TO_REMOVE, "nsenter", "ssh", "ssh-keygen", "systemd-nspawn")
TO_BUILD = ("debootstrap", "setpriv", "unshare")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
KEYRING_PACKAGE = "debian-archive-keyring"
APT_LOCK = Path("/run/lock/ai-client-fleet-apt.lock")
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_INSTANCES = 4096


def require_root() -> None:
    """Mounts, namespaces and containers are root's alone."""
    if os.geteuid() != 0:
        raise HostsError("local hosts", "only root can make or remove them", "run as root, or with sudo")


def require_programs(programs: Sequence[str], say: Callable[[str], None], *, path: str) -> None:
    """Installs what is not on the path, or says how to."""
    packages = missing_packages(programs, path=path)
    if not packages:
        return
    words = " ".join(packages)
    if shutil.which("apt-get", path=path) is None:
        raise HostsError("this machine", f"lacks {words}", "install these Debian packages' programs")
    with locked(APT_LOCK, timeout_s=600, say=say):
        _install(programs, say, path=path)


def _install(programs: Sequence[str], say: Callable[[str], None], *, path: str) -> None:
    packages = missing_packages(programs, path=path)
    if not packages:
        return
    words = " ".join(packages)
    say(f"installing {words}")
    remedy = f"install them by hand: apt-get install {words}"
    run(["apt-get", "update", "-qq"], timeout_s=300, remedy=remedy)
    options = ["-y", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    run(
        ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", *options, *packages],
        timeout_s=600,
        remedy=remedy,
    )
    left = missing_packages(programs, path=path)
    if left:
        raise HostsError("this machine", f"still lacks {' '.join(left)}", remedy)


def missing_packages(programs: Sequence[str], *, path: str) -> list[str]:
    """Debian packages whose program is not found on the path."""
    missing = {PACKAGE_OF[name] for name in programs if shutil.which(name, path=path) is None}
    if "debootstrap" in programs and not KEYRING.exists():
        missing.add(KEYRING_PACKAGE)
    return sorted(missing)


def require_inotify_instances(say: Callable[[str], None], *, setting: Path = INOTIFY) -> None:
    """Each host's systemd takes several; the kernel's usual 128 are gone after 26 hosts."""
    if int(setting.read_text()) >= INOTIFY_INSTANCES:
        return
    say(f"raising fs.inotify.max_user_instances to {INOTIFY_INSTANCES}")
    try:
        setting.write_text(f"{INOTIFY_INSTANCES}\n")
    except OSError as error:
        remedy = f"run: sysctl fs.inotify.max_user_instances={INOTIFY_INSTANCES}"
        raise HostsError(
            "fs.inotify.max_user_instances", f"can't be raised ({error.strerror})", remedy
        ) from error


def require_space(folder: Path, *, needed_mb: int, variable: str) -> None:
    """Says so before the disk is full, not when."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free_mb = shutil.disk_usage(existing).free // 2**20
    if free_mb < needed_mb:
        reason = f"{free_mb} MB free, {needed_mb} MB needed"
        raise HostsError(f"disk at {existing}", reason, f"free some, or set {variable} to a folder elsewhere")
