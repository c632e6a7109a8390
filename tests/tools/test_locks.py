"""The locks: exact versions, hashes, and nothing of where they came from."""

import re
import subprocess

import pytest

from tests.tools.artefact_checkout import ROOT
from tools.artefact.lockfile import read_pins

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_package_of_a_lock_has_a_hash(lock):
    """No line can be installed unchecked."""
    pins = read_pins(lock.read_text())
    assert pins
    assert [pin.name for pin in pins if not pin.sha256s] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_names_no_address(lock):
    """Whoever installs decides on the package index."""
    assert re.findall(r"^.*(?:://|--index|--find-links).*$", lock.read_text(), re.MULTILINE) == []


def test_each_lock_is_written_by_the_lock_script():
    """A lock that the script does not know would grow old unseen; each has its source beside it."""
    known = re.findall(r"^compile (\w+)", (ROOT / "tools/lock").read_text(), re.MULTILINE)
    assert sorted(known) == [lock.stem for lock in LOCKS]
    assert [lock.stem for lock in LOCKS if not lock.with_suffix(".in").is_file()] == []


def test_the_client_has_one_version_of_each_package_wherever_it_runs():
    """The simulator and the benchmark run what hosts run."""
    client = {pin.name: pin.version for pin in read_pins((ROOT / "requirements/client.txt").read_text())}
    for name in ("control", "dev", "bench"):
        pins = {pin.name: pin.version for pin in read_pins((ROOT / f"requirements/{name}.txt").read_text())}
        assert {package: pins[package] for package in client} == client


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.11", "3.14"])
def test_every_supported_python_has_all_packages_of_the_control_machine(version, tmp_path):
    """By wheels alone, with the lock's hashes: nothing is compiled on a machine whose Python this one lacks."""
    done = subprocess.run(
        [
            *(ROOT / ".venv/bin/uv", "pip", "install", "--dry-run", "--python-version", version),
            *("--target", tmp_path, "--only-binary", ":all:", "--require-hashes"),
            *("-r", ROOT / "requirements/control.txt"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Would install" in done.stderr
