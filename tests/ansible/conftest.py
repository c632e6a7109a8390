"""A host that is a folder, and two that are real."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ansible.folder_host import Rig, new_rig
from tests.ansible.real_fleet import HOSTS, Fleet, built_artefact, raised
from tests.tools.hosts_control import own_fleet

ROOT = Path(__file__).resolve().parents[2]
# 198.18.N.0/30; two runs on one machine take different ones.
LINK_OCTET = int(os.environ.get("HOSTS_TESTS_LINK_OCTET", "12"))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A host that nobody has deployed to."""
    return new_rig(tmp_path / "root")


@pytest.fixture(scope="session")
def artefact() -> Path:
    """The client as hosts install it, built from this checkout."""
    return built_artefact()


@pytest.fixture(scope="session")
def fleet(artefact: Path) -> Iterator[Fleet]:
    """Two real hosts, up; nothing of them is left at the end, also after a failure."""
    with own_fleet("ansible", LINK_OCTET) as control, raised(control, artefact, HOSTS) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def old_and_new() -> Iterator[Fleet]:
    """The oldest and the newest Debian that boot here, and an artefact with an interpreter of its own."""
    tags = (
        ("own-x86_64", "cp314-x86_64") if os.uname().machine == "x86_64" else ("own-aarch64", "cp314-aarch64")
    )
    built = built_artefact("--tag", *tags)
    hosts = {"h1": "forky", "h2": "bullseye"}
    with own_fleet("oldnew", LINK_OCTET + 100) as control, raised(control, built, hosts) as fleet:
        yield fleet
