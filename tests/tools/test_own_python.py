"""What of Debian's packages becomes the own interpreter, and under which name."""

from pathlib import PurePosixPath

import pytest

from tools.artefact.own_python import _laid_out
from tools.artefact.tags import OwnTag

X86, ARM = OwnTag("x86_64"), OwnTag("aarch64")


@pytest.mark.parametrize(
    ("tag", "link", "target"),
    [
        (X86, "usr/lib64/ld-linux-x86-64.so.2", "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
        (ARM, "usr/lib/ld-linux-aarch64.so.1", "aarch64-linux-gnu/ld-linux-aarch64.so.1"),
    ],
)
def test_the_loader_is_taken_whatever_links_to_it(tag: OwnTag, link: str, target: str) -> None:
    """As libc6 of Debian 13 has them: on arm64 the link names the loader beside the folder of libraries."""
    file = f"usr/lib/{tag.machine}-linux-gnu/{link.rpartition('/')[2]}"
    members = [(PurePosixPath(link), target), (PurePosixPath(file), b"loader")]
    assert _laid_out(iter(members), tag=tag) == {"lib/ld.so": b"loader"}


def test_a_library_is_taken_once_by_the_name_of_its_link() -> None:
    """Which is the name that programs look for."""
    folder = PurePosixPath("usr/lib/x86_64-linux-gnu")
    members = [(folder / "libz.so.1", "libz.so.1.3.1"), (folder / "libz.so.1.3.1", b"zlib")]
    assert _laid_out(iter(members), tag=X86) == {"lib/libz.so.1": b"zlib"}
