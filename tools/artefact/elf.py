"""What a native library says about itself, read from its bytes."""

import re
from collections.abc import Iterable

from tools.artefact.errors import ArtefactError
from tools.artefact.tags import ELF_MACHINES, Tag

_MAGIC = b"\x7fELF"
_LITTLE_ENDIAN = 1
# Version names lie in the dynamic string table, each between zero bytes.
_GLIBC = re.compile(rb"\0GLIBC_(\d+)\.(\d+)(?=\0|\.)")


def is_elf(content: bytes) -> bool:
    """Whether these are the bytes of an ELF object."""
    return content.startswith(_MAGIC)


def machine(content: bytes) -> int:
    """`e_machine` of an ELF object."""
    return int.from_bytes(content[18:20], "little" if content[5] == _LITTLE_ENDIAN else "big")


def check_machine(name: str, content: bytes, *, tag: Tag) -> None:
    """Refuses a native library that is for another processor than the tree's."""
    found = machine(content)
    if found != ELF_MACHINES[tag.machine]:
        raise ArtefactError(
            f"{name} in the tree {tag} is for ELF machine {found}, not {ELF_MACHINES[tag.machine]} "
            f"({tag.machine}); the wheel is mislabelled: pin another version in requirements/client.in"
        )


def glibc_min(contents: Iterable[bytes]) -> str | None:
    """The newest C library version that any of these objects asks for, as `2.17`; None where none asks."""
    found = {(int(major), int(minor)) for content in contents for major, minor in _GLIBC.findall(content)}
    return ".".join(map(str, max(found))) if found else None
