"""The Debian releases that boot here, and what tells one image from another."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    """One release.

    Attributes:
        name: its code name, which stays when the next release becomes testing.
        script: debootstrap's own script for it, where an older debootstrap does not know the name yet.
        sudo: the package that gives `sudo`; Ubuntu has had sudo-rs since 25.10.
        sshd: further lines for its sshd.
        is_unified: its systemd (258 and newer) boots with version 2 of control groups alone.
    """

    name: str
    script: str = ""
    sudo: str = "sudo"
    sshd: str = ""
    is_unified: bool = False


# OpenSSH since 9.8 shuts out an address after a few failures; behind the jump host all have the same one.
_NO_PENALTIES = "PerSourcePenalties no\n"

SUITES = {
    suite.name: suite
    for suite in (
        Suite("bookworm"),
        Suite("bullseye"),
        Suite("trixie", sshd=_NO_PENALTIES),
        Suite("forky", script="sid", sudo="sudo-rs", sshd=_NO_PENALTIES, is_unified=True),
    )
}
DEFAULT = "bookworm"
# Where Debian's package of sudo-rs keeps its programs; a distribution that ships it as `sudo` links them.
SUDO_RS_FOLDER = "/usr/lib/cargo/bin"
