"""Python's and Ansible's packages. They are packed again, as the builders' bytes depend on clock, umask and order."""

import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

from tools.artefact.archive import pack
from tools.distribution.errors import ReleaseError

# The earliest time that a zip file can name.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_FILE_MODE = 0o100644 << 16
_NOT_SOURCES = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pyc", "build", "dist")


def build_python(root: Path, *, work: Path, out: Path) -> None:
    """Wheel and sdist of the client into `out`. Raises ReleaseError."""
    sources, built = work / "client", work / "built"
    shutil.copytree(root / "client", sources, ignore=_NOT_SOURCES)
    command = [
        str(root / ".venv/bin/uv"),
        "build",
        "--quiet",
        "--no-build-isolation",
        "--out-dir",
        str(built),
    ]
    _run([*command, str(sources)], root=root)
    for path in built.iterdir():
        if path.suffix == ".whl":
            (out / path.name).write_bytes(repacked_wheel(path.read_bytes()))
        elif path.name.endswith(".tar.gz"):
            (out / path.name).write_bytes(repacked_tar(path.read_bytes()))


def build_collection(root: Path, *, work: Path, out: Path) -> None:
    """The Ansible collection into `out`. Raises ReleaseError."""
    built = work / "collection"
    galaxy = str(root / ".venv/bin/ansible-galaxy")
    _run([galaxy, "collection", "build", str(root / "ansible"), "--output-path", str(built)], root=root)
    for path in built.glob("*.tar.gz"):
        (out / path.name).write_bytes(repacked_tar(path.read_bytes()))


def repacked_wheel(content: bytes) -> bytes:
    """The same files; metadata last, as the format wants it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in sorted(old.namelist(), key=lambda name: (".dist-info/" in name, name)):
            info = zipfile.ZipInfo(name, _ZIP_TIME)
            info.external_attr, info.compress_type = _FILE_MODE, zipfile.ZIP_DEFLATED
            new.writestr(info, old.read(name))
    return buffer.getvalue()


def repacked_tar(content: bytes) -> bytes:
    """The same files, without times, owners and modes."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as old:
        for member in old:
            file = old.extractfile(member)
            if file is not None:
                files[member.name] = file.read()
    return pack(files).content


def _run(command: list[str], *, root: Path) -> None:
    environment = os.environ | {"VIRTUAL_ENV": str(root / ".venv"), "ANSIBLE_HOME": str(root / ".ansible")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ReleaseError(f"{Path(command[0]).name} failed:\n{(done.stdout + done.stderr).strip()}")
