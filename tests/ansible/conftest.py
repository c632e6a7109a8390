"""The applier's packages on the path, a host that is a folder, and two that are real."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "ansible" / "applier"))

from tests.ansible.folder_host import Rig, new_rig  # noqa: E402
from tests.ansible.real_fleet import Fleet  # noqa: E402
from tests.tools.hosts_control import Control, leftovers  # noqa: E402

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
    argv = ["tools/artefact/build"]
    built = subprocess.run(
        argv, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False, cwd=ROOT
    )
    assert built.returncode == 0, built.stderr
    return Path(built.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory, artefact: Path) -> Iterator[Fleet]:
    """Two real hosts, up; nothing of them is left at the end, also after a failure."""
    control = Control(tmp_path_factory.mktemp("local-ansible"), "ansible", LINK_OCTET)
    # Sockets of kept connections have no room for a long path.
    with TemporaryDirectory(prefix="acf-") as folder:
        fleet = Fleet(control, Path(folder), artefact)
        try:
            fleet.raise_all()
            yield fleet
        finally:
            fleet.close_connections()
            control.ask("purge")
    assert leftovers(control) == []
