"""The client package as an installer would lay it down, made from its sources alone."""

import base64
import hashlib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.artefact.errors import ArtefactError

_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)


@dataclass(frozen=True)
class Package:
    """A distribution: its version, and its files by their names below `lib/`."""

    version: str
    files: dict[str, bytes]


def read_package(client: Path) -> Package:
    """The distribution in the folder `client` (pyproject.toml, src/ai_client), whatever its times."""
    project = tomllib.loads((client / "pyproject.toml").read_text(encoding="utf-8"))
    version = _version(client, project=project["project"])
    files = {
        path.relative_to(client / "src").as_posix(): path.read_bytes()
        for path in _sources(client / "src", project=project)
    }
    info = f"ai_client-{version}.dist-info"
    for name in project["project"].get("license-files", ()):
        files[f"{info}/licenses/{name}"] = (client / name).read_bytes()
    files[f"{info}/METADATA"] = _metadata(project["project"])
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = _entry_points(project["project"])
    files[f"{info}/RECORD"] = _record(files, own_name=f"{info}/RECORD")
    return Package(version=version, files=files)


def _version(client: Path, *, project: dict[str, Any]) -> str:
    path = client / "src" / "ai_client" / "__init__.py"
    match = _VERSION.search(path.read_text(encoding="utf-8"))
    if match is None:
        raise ArtefactError(f'{path} has no line `__version__ = "…"`; the release is named by it: add one')
    declared: str = project["version"]
    if match[1] != declared:
        raise ArtefactError(
            f"the client's version is {match[1]} in {path}, but {declared} in {client / 'pyproject.toml'}; "
            "write the same in both"
        )
    return declared


def _sources(src: Path, *, project: dict[str, Any]) -> list[Path]:
    """Modules and declared package data, as setuptools picks them, so that stray files stay out."""
    package_data = project["tool"]["setuptools"].get("package-data", {})
    found = set((src / "ai_client").rglob("*.py"))
    for package, patterns in package_data.items():
        for pattern in patterns:
            found.update((src / package).glob(pattern))
    return sorted(path for path in found if path.is_file())


def _metadata(project: dict[str, Any]) -> bytes:
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {project['name']}",
        f"Version: {project['version']}",
        f"Summary: {project['description']}",
        f"License-Expression: {project['license']}",
        *(f"License-File: {name}" for name in project.get("license-files", ())),
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {requirement}" for requirement in project["dependencies"]),
    ]
    return ("\n".join(lines) + "\n").encode()


def _entry_points(project: dict[str, Any]) -> bytes:
    scripts = sorted(project["scripts"].items())
    return ("[console_scripts]\n" + "".join(f"{name} = {target}\n" for name, target in scripts)).encode()


def _record(files: dict[str, bytes], *, own_name: str) -> bytes:
    """The installed files with their digests (PyPA specification "Recording installed projects")."""
    rows = []
    for name, content in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(content)}\n")
    return ("".join(rows) + f"{own_name},,\n").encode()
