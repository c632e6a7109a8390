"""A host that is a folder, and two that are real."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.ansible.folder_host import Rig, new_rig
from tests.ansible.real_fleet import HOSTS, Fleet
from tests.tools.hosts_control import Control, own_fleet

ROOT = Path(__file__).resolve().parents[2]
# 198.18.N.0/30; two runs on one machine take different ones.
LINK_OCTET = int(os.environ.get("HOSTS_TESTS_LINK_OCTET", "12"))
BUILD_TIMEOUT_S = 900


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A host that nobody has deployed to."""
    return new_rig(tmp_path / "root")


@pytest.fixture(scope="session")
def artefact() -> Path:
    """The client as hosts install it, built from this checkout."""
    return _built()


@pytest.fixture(scope="session")
def fleet(artefact: Path) -> Iterator[Fleet]:
    """Two real hosts, up; nothing of them is left at the end, also after a failure."""
    with own_fleet("ansible", LINK_OCTET) as control:
        yield from _raised(control, artefact, HOSTS)


@pytest.fixture(scope="module")
def old_and_new() -> Iterator[Fleet]:
    """The oldest and the newest Debian that boot here, and an artefact with an interpreter of its own."""
    tags = (
        ("own-x86_64", "cp314-x86_64") if os.uname().machine == "x86_64" else ("own-aarch64", "cp314-aarch64")
    )
    built = _built("--tag", *tags)
    with own_fleet("oldnew", LINK_OCTET + 100) as control:
        yield from _raised(control, built, {"h1": "forky", "h2": "bullseye"})


def _built(*options: str) -> Path:
    argv = ["tools/artefact/build", *options]
    built = subprocess.run(
        argv, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False, cwd=ROOT
    )
    assert built.returncode == 0, built.stderr
    return Path(built.stdout.splitlines()[-1])


def _raised(control: Control, artefact: Path, hosts: Mapping[str, str]) -> Iterator[Fleet]:
    # Sockets of kept connections have no room for a long path.
    with TemporaryDirectory(prefix="acf-") as folder:
        fleet = Fleet(control, Path(folder), artefact, hosts)
        try:
            fleet.raise_all()
            yield fleet
        finally:
            fleet.close_connections()
