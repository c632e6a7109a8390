"""Which interpreter and processor a tree is for."""

import re
from dataclasses import dataclass

from tools.artefact.errors import ArtefactError

# The oldest C library for which every dependency publishes wheels; each tree records what it really needs.
MANYLINUX = "manylinux_2_17"

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


def parse_tag(text: str) -> Tag:
    """`cp311-x86_64` as a Tag."""
    match = _TAG.fullmatch(text)
    if match is None:
        raise ArtefactError(
            f"tag {text!r} is unknown; write cp3<minor>-<x86_64 or aarch64>, such as cp311-x86_64"
        )
    return Tag(int(match["minor"]), match["machine"])


# Debian 12, Ubuntu 24.04 and Debian 13, each on both processors.
DEFAULT_TAGS = tuple(Tag(minor, machine) for minor in (11, 12, 13) for machine in ("aarch64", "x86_64"))
