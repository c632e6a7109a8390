"""What makes a checkout's own virtual environment."""

import shutil
import subprocess
from pathlib import Path

from tests.infra.stacks import PROJECT


def test_another_checkouts_venv_is_never_written_to(tmp_path: Path) -> None:
    """Through a link it would lead that checkout's programs to this one's client, and break them when this one goes."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "tools").mkdir()
    (tmp_path / "client").mkdir()
    locks = [f"requirements/{name}.txt" for name in ("bootstrap", "control", "dev")]
    for name in ("tools/setup", "client/pyproject.toml", *locks):
        shutil.copy(PROJECT / name, tmp_path / name)
    other = tmp_path / "other"
    other.mkdir()
    (other / ".lock-digest").write_text("dev-of-another-day\n")
    (tmp_path / ".venv").symlink_to(other)
    done = subprocess.run(
        [tmp_path / "tools/setup", "dev"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert (
        ".venv is a link to another checkout's, and is not up to date; run tools/setup dev there"
        in done.stderr
    )
    assert [path.name for path in other.iterdir()] == [".lock-digest"]
