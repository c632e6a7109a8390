"""The applier's packages on the path, and a host that is a folder."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "ansible" / "applier"))

from tests.ansible.folder_host import Rig, new_rig


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A host that nobody has deployed to."""
    return new_rig(tmp_path / "root")
