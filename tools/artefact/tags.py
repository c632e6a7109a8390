"""Which interpreter and processor a tree is for."""

import re
from dataclasses import dataclass

from tools.artefact.errors import ArtefactError

# The oldest C library for which every dependency publishes wheels; each tree records what it really needs.
MANYLINUX = "manylinux_2_17"

OWN_MINOR = 13
"""The CPython that a tree of its own brings."""

# e_machine of an ELF header (System V ABI, figure 4-3 and the processors' supplements).
ELF_MACHINES = {"x86_64": 62, "aarch64": 183}

_TAG = re.compile(r"cp3(?P<minor>\d{1,2})-(?P<machine>x86_64|aarch64)")


@dataclass(frozen=True, order=True)
class Tag:
    """One tree: CPython 3.`minor` on `machine`, written `cp311-x86_64`."""

    minor: int
    machine: str

    def __str__(self) -> str:
        return f"cp3{self.minor}-{self.machine}"

    @property
    def python_version(self) -> str:
        """As uv takes it: `3.11`."""
        return f"3.{self.minor}"

    @property
    def python_platform(self) -> str:
        """As uv takes it: `x86_64-manylinux_2_17`."""
        return f"{self.machine}-{MANYLINUX}"


@dataclass(frozen=True, order=True)
class OwnTag:
    """A tree that brings its own interpreter (own_python.py), written `own-x86_64`."""

    machine: str

    @property
    def like(self) -> Tag:
        """The tree whose packages it holds."""
        return Tag(OWN_MINOR, self.machine)

    def __str__(self) -> str:
        return f"own-{self.machine}"


AnyTag = Tag | OwnTag


def parse_tag(text: str) -> AnyTag:
    """`cp311-x86_64` as a Tag, `own-x86_64` as an OwnTag."""
    match = _TAG.fullmatch(text)
    if match:
        return Tag(int(match["minor"]), match["machine"])
    machine = text.removeprefix("own-")
    if text.startswith("own-") and machine in ELF_MACHINES:
        return OwnTag(machine)
    raise ArtefactError(
        f"tag {text!r} is unknown; write cp3<minor>-<x86_64 or aarch64>, such as cp311-x86_64, or own-x86_64"
    )


# Debian 12, Ubuntu 24.04, Debian 13, and Ubuntu 26.04 with Debian 14, each on both processors.
DEFAULT_TAGS = tuple(Tag(minor, machine) for minor in (11, 12, 13, 14) for machine in ("aarch64", "x86_64"))
OWN_TAGS = tuple(OwnTag(machine) for machine in sorted(ELF_MACHINES))
