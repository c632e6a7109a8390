"""What is released: it can be installed, it is the same each time, and it names one version."""

import ast
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.infra.stacks import PROJECT
from tools.distribution import packages, release, versions
from tools.distribution.errors import ReleaseError

CLIENT = PROJECT / "client"


def copied(target: Path) -> Path:
    """What a release is built from, beside the trees."""
    for name in ("client", "ansible", "policy"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / name, target / name, symlinks=True, ignore=ignore)
    for name in ("CHANGELOG.md", "LICENSE", "pyproject.toml"):
        shutil.copy(PROJECT / name, target / name)
    (target / ".venv").symlink_to(PROJECT / ".venv")
    return target


def built(root: Path, out: Path) -> dict[str, bytes]:
    """Packages by name."""
    out.mkdir()
    work = out.with_name(f"{out.name}-work")
    work.mkdir()
    packages.build_python(root, work=work, out=out)
    packages.build_collection(root, work=work, out=out)
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this checkout."""
    folder = tmp_path_factory.mktemp("release")
    built(PROJECT, folder / "out")
    (found,) = (folder / "out").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program in an empty venv, into which the wheel and what it declares were installed."""
    venv = tmp_path_factory.mktemp("venv") / "venv"
    uv = str(PROJECT / ".venv/bin/uv")
    python = str(venv / "bin/python")
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, str(venv)],
        [uv, "pip", "sync", "--quiet", "--python", python, "--require-hashes", "requirements/client.txt"],
        [uv, "pip", "install", "--quiet", "--python", python, "--no-deps", str(wheel)],
        [uv, "pip", "check", "--quiet", "--python", python],
    ):
        subprocess.run(command, cwd=PROJECT, check=True)
    return venv / "bin/ai-client"


@pytest.mark.slow
def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    """Of two checkouts of other times, made under other umasks."""
    first = built(PROJECT, tmp_path / "first")
    before = os.umask(0o077)
    try:
        other = copied(tmp_path / "checkout")
        for path in other.rglob("*"):
            os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
        second = built(other, tmp_path / "second")
    finally:
        os.umask(before)
    assert sorted(first) == sorted(second)
    assert [name for name, content in first.items() if second[name] != content] == []
    assert len(first) == 3


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    """Licence, text and version; whatever is in it belongs to the package."""
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        info = next(name for name in names if name.endswith("/METADATA"))
        told = Parser().parsestr(archive.read(info).decode())
        licence = next(name for name in names if name.endswith("licenses/LICENSE"))
        assert archive.read(licence) == (PROJECT / "LICENSE").read_bytes()
    assert (told["Name"], told["Version"]) == ("ai-client", versions.version(PROJECT))
    assert (told["License-Expression"], told["Description-Content-Type"]) == ("Apache-2.0", "text/markdown")
    assert "ai-client serve" in str(told.get_payload())
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"ai_client"}
    assert "ai_client/gateway/watch/status.html" in names


@pytest.mark.slow
def test_the_program_runs_from_an_empty_venv(installed: Path, tmp_path: Path) -> None:
    """Served without a configuration, as somebody sees it who has only the file."""
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}

    def ai_client(*words: str) -> str:
        command = [str(installed), *words]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    assert ai_client("--version") == f"ai-client {versions.version(PROJECT)}\n"
    with subprocess.Popen(
        [str(installed), "serve", "--port", "0"],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as service:
        try:
            assert service.stdout is not None
            assert service.stdout.readline().startswith("listening on ")
            assert ai_client("chat", "hello", "--max-tokens", "1") == "hello\n"
            assert json.loads(ai_client("usage", "--json"))["total"]["requests"] == 1
        finally:
            service.send_signal(signal.SIGINT)
    assert service.returncode == 0


def imported() -> Iterator[str]:
    """The top-level name of each import in the client, type checking included."""
    for path in (CLIENT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]


def test_exactly_what_is_imported_is_declared_with_bounds() -> None:
    """No dependency is brought that nothing uses, and none is taken for granted; a next major version is not."""
    declared = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {line.partition(">")[0] for line in declared}
    owners = packages_distributions()
    # `compression` is in the standard library from Python 3.14 on.
    foreign = set(imported()) - sys.stdlib_module_names - {"ai_client", "compression"}
    used = {owners[name][0].lower().replace("_", "-") for name in foreign}
    assert used | {"socksio"} == names  # httpx imports it, for SOCKS proxies
    assert [line for line in declared if ">=" not in line or ",<" not in line] == []


def test_every_file_names_one_version(tmp_path: Path) -> None:
    """A release is refused where one of them does not, by all that differ."""
    root = copied(tmp_path)
    assert versions.version(root) == versions.version(PROJECT)
    for name in ("ansible/galaxy.yml", "pyproject.toml"):
        path = root / name
        path.write_text(path.read_text().replace(f"{versions.version(PROJECT)}", "9.9.9"))
    with pytest.raises(ReleaseError, match=r"pyproject.toml says 9.9.9, ansible/galaxy.yml says 9.9.9"):
        versions.version(root)


def test_the_notes_are_the_newest_section_of_the_changelog(tmp_path: Path) -> None:
    """Without the one below."""
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## 1.1.0 (unreleased)\n\n- New.\n\n## 1.0.0 (2026-12-01)\n\n- Old.\n"
    )
    assert versions.notes(tmp_path) == "# ai-client-fleet 1.1.0 (unreleased)\n\n- New.\n"
    assert not versions.is_dated(tmp_path)


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path, capsys) -> None:
    """Only an earlier release is replaced."""
    (tmp_path / "thesis.txt").write_text("mine")
    assert release.main(["--out", str(tmp_path)]) == 1
    assert "thesis.txt, which is of no release" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_release_holds_all_of_its_parts_and_their_sums(tmp_path: Path, capsys) -> None:
    """Built whole, over an earlier one. The supply chain's page builds two that are the same."""
    out = tmp_path / "dist"
    out.mkdir()
    (out / "old.whl").write_text("old")
    (out / release.SUMS).write_text("0  old.whl\n")
    assert release.main(["--out", str(out)]) == 0
    version = versions.version(PROJECT)
    listed = dict(reversed(line.split("  ")) for line in capsys.readouterr().out.splitlines())
    expected = {
        *("NOTES.md", "artefact/index.json", f"ai-client-{version}.cdx.json"),
        *(f"ai_client-{version}.tar.gz", f"ai_client-{version}-py3-none-any.whl"),
        *(f"ai_client-fleet-{version}.tar.gz", f"ai-client-fleet-docs-{version}.tar.gz"),
        *("artefact/own-x86_64.tar.gz", "artefact/own-aarch64.tar.gz", f"ai-client-{version}.oci.tar"),
    }
    assert expected <= listed.keys()
    assert not (out / "old.whl").exists()
    for name, digest in listed.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert list(tmp_path.glob(".release-*")) == []
    with tarfile.open(out / f"ai-client-{version}.oci.tar") as image:
        assert {"oci-layout", "index.json"} <= set(image.getnames())
        written = json.load(image.extractfile("index.json"))
    (top,) = written["manifests"]
    assert top["annotations"] == {"org.opencontainers.image.ref.name": version}
