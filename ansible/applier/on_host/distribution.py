"""What distributions do in different ways, as data: nothing elsewhere asks which one a host is."""

import re
from typing import NamedTuple

from .errors import ApplyError
from .tree import Tree


class TrustStore(NamedTuple):
    """Where a host's own certificates are laid, and the program that takes them up."""

    folder: str
    program: tuple[str, ...]


# The first whose folder the host has; each distribution ships its own one only.
TRUST_STORES = (
    TrustStore(
        "/etc/pki/ca-trust/source/anchors", ("update-ca-trust", "extract")
    ),  # RHEL and kin, Amazon, Fedora
    TrustStore("/etc/pki/trust/anchors", ("update-ca-certificates",)),  # SUSE
    TrustStore("/etc/ca-certificates/trust-source/anchors", ("trust", "extract-compat")),  # Arch
    # Debian, Ubuntu. Without `--fresh` the link to a certificate that is gone stays in /etc/ssl/certs.
    TrustStore("/usr/local/share/ca-certificates", ("update-ca-certificates", "--fresh")),
)

# A login shell that lets nobody in.
NO_LOGIN = ("/usr/sbin/nologin", "/sbin/nologin", "/usr/bin/nologin", "/bin/false")

# Where the kernel shows that SELinux is on.
SELINUX = "/sys/fs/selinux/enforce"

# Which package has a program whose name does not say so.
PACKAGES = {
    "groupadd": "passwd (Debian), shadow (SUSE, Arch) or shadow-utils (RHEL)",
    "useradd": "passwd (Debian), shadow (SUSE, Arch) or shadow-utils (RHEL)",
    "restorecon": "policycoreutils",
    "trust": "p11-kit",
    "update-ca-certificates": "ca-certificates",
    "update-ca-trust": "ca-certificates",
}

# The systemd that first knew an option of our units (its NEWS); what all know since 239 is left out.
_SINCE = {
    "ProcSubset": 247,
    "ProtectClock": 245,
    "ProtectHostname": 242,
    "ProtectKernelLogs": 244,
    "ProtectProc": 247,
    "RestrictSUIDSGID": 242,
}
# Without these the service would lack what it is to start with, so that leaving them out is no way.
_NEEDED = {"LoadCredential": 247, "LoadCredentialEncrypted": 250}
OLDEST_SYSTEMD = 239
_VERSION = re.compile(r"systemd (\d+)")
_OPTION = re.compile(r"(\w+)=")


def trust_store(tree: Tree) -> TrustStore:
    """The store of this host; Debian's where it has none yet."""
    return next(
        (store for store in TRUST_STORES if tree.look(store.folder).kind == "directory"), TRUST_STORES[-1]
    )


def is_in_trust_store(path: str) -> bool:
    """Whether a file is of some distribution's store."""
    return path.startswith(tuple(f"{store.folder}/" for store in TRUST_STORES))


def no_login(tree: Tree) -> str:
    """The shell for a user who never logs in."""
    return next((path for path in NO_LOGIN if tree.look(path).kind in ("file", "link")), NO_LOGIN[-1])


def systemd_version(told: str) -> int:
    """The number in the first line of `systemctl --version`; the newest there may be where it tells none."""
    found = _VERSION.match(told)
    return int(found.group(1)) if found else max(_SINCE.values())


def refuse_old_systemd(version: int, units: "dict[str, str]") -> None:
    """Raises ApplyError where this systemd can't do what the units can't do without."""
    if version < OLDEST_SYSTEMD:
        reason = f"is of version {version}, and the service's sandbox needs {OLDEST_SYSTEMD} or newer"
        raise ApplyError("this host's systemd", reason, "upgrade the host's distribution")
    options = {
        option.group(1)
        for text in units.values()
        for option in map(_OPTION.match, text.split("\n"))
        if option
    }
    for name, since in _NEEDED.items():
        if name in options and version < since:
            reason = f"is of version {version}, and {name}= needs {since} or newer"
            remedy = "set ai_key_from: file, or name a folder of unencrypted credentials in ai_credential_dir"
            raise ApplyError("this host's systemd", reason, remedy)


def known_to(version: int, unit: str) -> str:
    """A unit without the options that this systemd does not know: it would warn of each at every reload."""
    lines = unit.split("\n")
    return "\n".join(line for line in lines if _since(line) <= version)


def _since(line: str) -> int:
    option = _OPTION.match(line)
    return _SINCE.get(option.group(1), 0) if option else 0
