"""What the base image is made of. Pure data and a digest over it: another recipe is another image."""

import hashlib
import json

from tools.hosts.inputs import LOGIN
from tools.hosts.suites import SUDO_RS_FOLDER, SUITES

REVISION = 1
"""Counts changes in how the image is made from what stands here."""

PACKAGES = (
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "login",
    "openssh-server",
    "openssl",
    "python3",
    "systemd",
    "systemd-sysv",
)

# Nobody reads manuals there, and dpkg's syncs make a third of the time; the whole image is synced once at the end.
DPKG_WHILE_BUILDING = """\
force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/man/*
"""

# No console, no clock, no downloads, no devices: they only cost time at boot.
MASKED_UNITS = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty-static.service",
    "getty.target",
    "getty@tty1.service",
    "remote-fs.target",
    "systemd-firstboot.service",
    "systemd-logind.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-networkd-wait-online.service",
    "systemd-pstore.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "sys-fs-fuse-connections.mount",
)

_SSHD = f"""\
HostKey /etc/ssh/ssh_host_ed25519_key
AllowUsers {LOGIN}
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
PrintMotd no
# A whole fleet comes in through one jump host, at once.
MaxStartups 500
MaxSessions 500
"""

# The package of sudo-rs brings none.
_SUDOERS = """\
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
root ALL=(ALL:ALL) ALL
@includedir /etc/sudoers.d
"""


def packages(suite: str) -> tuple[str, ...]:
    """What debootstrap installs beside the base system."""
    return tuple(sorted((*PACKAGES, SUITES[suite].sudo)))


def links(suite: str) -> dict[str, str]:
    """Links laid over the packages' own: path to target."""
    if SUITES[suite].sudo != "sudo-rs":
        return {}
    return {f"usr/bin/{name}": f"{SUDO_RS_FOLDER}/{name}" for name in ("sudo", "visudo")}


def files(suite: str) -> dict[str, tuple[int, str]]:
    """Files laid over the packages' own: path to mode and text."""
    sshd = _SSHD + SUITES[suite].sshd
    sudoers = {"etc/sudoers": (0o440, _SUDOERS)} if SUITES[suite].sudo == "sudo-rs" else {}
    return sudoers | {
        "etc/ssh/sshd_config.d/10-fleet.conf": (0o644, sshd),
        f"etc/sudoers.d/{LOGIN}": (0o440, f"{LOGIN} ALL=(ALL:ALL) NOPASSWD: ALL\n"),
        "etc/machine-id": (0o444, ""),
        "etc/resolv.conf": (0o644, ""),
        "etc/hostname": (0o644, "localhost\n"),
        "etc/apt/apt.conf.d/90-offline": (0o644, 'APT::Periodic::Enable "0";\n'),
    }


def digest(suite: str) -> str:
    """Names the image: whatever goes into it goes in here."""
    parts = [
        REVISION,
        suite,
        packages(suite),
        DPKG_WHILE_BUILDING,
        MASKED_UNITS,
        sorted(files(suite).items()),
        *sorted(links(suite).items()),
        LOGIN,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
