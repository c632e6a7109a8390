"""What lies in the trees that a host gets."""

import base64
import csv
import hashlib
import io
import os
import platform
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.tools.artefact_checkout import ROOT, VERSION, copy_checkout
from tools.artefact.build import build
from tools.artefact.elf import is_elf, machine
from tools.artefact.package import read_package
from tools.artefact.tags import DEFAULT_TAGS

pytestmark = pytest.mark.slow

ELF_MACHINE = {"x86_64": 62, "aarch64": 183}


@pytest.fixture(scope="module")
def folder() -> Path:
    """A build of every tree from this checkout, in the user's cache."""
    return build(out=None, tags=DEFAULT_TAGS)


@pytest.fixture(scope="module", params=[str(tag) for tag in DEFAULT_TAGS])
def members(request, folder) -> dict[tarfile.TarInfo, bytes]:
    return read_tree(folder / f"{request.param}.tar.gz")


def read_tree(path: Path) -> dict[tarfile.TarInfo, bytes]:
    with tarfile.open(path) as tar:
        return {info: tar.extractfile(info).read() if info.isfile() else b"" for info in tar}


def unpack(packed: Path, target: Path) -> None:
    """As a host does."""
    target.mkdir()
    subprocess.run(["tar", "-xzf", packed, "-C", target], check=True)


def interpreters() -> dict[str, str]:
    """A Python of each minor version that is found on this machine, by the tag's beginning."""
    found = {}
    for minor in sorted({tag.minor for tag in DEFAULT_TAGS}):
        pyenv = sorted(map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3.{minor}")))
        for candidate in ["/usr/bin/python3", f"python3.{minor}", *pyenv]:
            if minor_version(candidate) == f"3.{minor}":
                found.setdefault(f"cp3{minor}", candidate)
    return found


def minor_version(python: str) -> str:
    """`3.11`, or nothing where there is no such program or it does not start."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return subprocess.run(
            [python, "-c", code], capture_output=True, text=True, check=False
        ).stdout.strip()
    except FileNotFoundError:
        return ""


INTERPRETERS = interpreters()


@pytest.mark.parametrize(("prefix", "python"), INTERPRETERS.items(), ids=list(INTERPRETERS))
def test_the_client_starts_from_its_tree_alone(prefix, python, folder, tmp_path):
    """`python3 -I -S main.py` needs no package of the host and writes nothing."""
    unpack(folder / f"{prefix}-{platform.machine()}.tar.gz", tmp_path / "release")
    before = sorted(tmp_path.rglob("*"))
    poisoned = os.environ | {
        "PYTHONPATH": "/nowhere",
        "PYTHONSTARTUP": "/nowhere",
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    result = subprocess.run(
        [python, "-I", "-S", "-B", tmp_path / "release" / "main.py", "--version"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=poisoned,
        timeout=60,
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"ai-client {VERSION}\n"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("prefix", "python"), INTERPRETERS.items(), ids=list(INTERPRETERS))
def test_every_dependency_loads_from_its_tree(prefix, python, folder, tmp_path):
    """The native modules fit the interpreter, and no module comes from the host's packages."""
    unpack(folder / f"{prefix}-{platform.machine()}.tar.gz", tmp_path / "release")
    code = """
import sys, ai_client, aiohappyeyeballs, aiohttp, httptools.parser, httpx, msgspec, prometheus_client, uvloop, yarl
files = [m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)]
print([f for f in files if "-packages" in f])
"""

    result = subprocess.run(
        [python, "-s", "-S", "-B", "-c", code],
        env={"PYTHONPATH": str(tmp_path / "release" / "lib")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_an_interpreter_of_this_machine_was_among_those_tried():
    """The two tests above ran: at least one like the Python that runs this test is found."""
    assert f"cp3{sys.version_info.minor}" in INTERPRETERS


def test_each_native_library_is_for_its_tree_s_processor(folder):
    """x86-64 trees hold x86-64 objects alone, aarch64 trees aarch64 objects alone, and both hold some."""
    for tag in DEFAULT_TAGS:
        contents = read_tree(folder / f"{tag}.tar.gz").values()
        found = [machine(content) for content in contents if is_elf(content)]
        assert len(found) > 10
        assert set(found) == {ELF_MACHINE[tag.machine]}


def test_no_trace_of_the_machine_that_built_is_in_a_tree(members, folder):
    """No path of the checkout, the cache or the home folder, no bytecode, no mark of the installer."""
    own = [str(path).encode() for path in (ROOT, folder.parent, Path.home() / ".cache")]
    names = [info.name for info in members]

    assert [info.name for info, content in members.items() for path in own if path in content] == []
    assert [
        name for name in names if re.search(r"\.pyc$|__pycache__|/bin/|\.lock$|direct_url|uv_cache", name)
    ] == []
    assert [name for name in names if name.endswith(("INSTALLER", "REQUESTED"))] == []
    assert {name.split("/")[0] for name in names} == {"lib", "main.py"}


def test_the_archive_says_nothing_of_times_owners_or_umasks(members):
    """Sorted names, time 0, owner 0 without names, one mode for files and one for folders."""
    assert [info.name for info in members] == sorted(info.name for info in members)
    assert {(i.mtime, i.uid, i.gid, i.uname, i.gname) for i in members} == {(0, 0, 0, "", "")}
    assert {(i.type, i.mode) for i in members} == {(tarfile.REGTYPE, 0o644), (tarfile.DIRTYPE, 0o755)}


def test_the_gzip_header_carries_no_name_and_no_time(folder):
    """RFC 1952: no flags, MTIME zero."""
    for tag in DEFAULT_TAGS:
        assert (folder / f"{tag}.tar.gz").read_bytes()[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"


def test_every_file_is_proven_by_a_record(members):
    """Each file below lib/ but the RECORDs has its digest in one, and each recorded file is there."""
    files = {info.name: content for info, content in members.items() if info.isfile()}
    recorded = {}
    for name, content in files.items():
        if name.endswith(".dist-info/RECORD"):
            recorded |= {f"lib/{row[0]}": row[1] for row in csv.reader(io.StringIO(content.decode()))}
    digests = {
        name: "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        for name, content in files.items()
    }

    assert {name for name in files if name.startswith("lib/")} == recorded.keys()
    assert [name for name, digest in recorded.items() if digest and digest != digests[name]] == []


def test_the_client_in_the_tree_is_what_its_wheel_would_hold(tmp_path):
    """setuptools, the package's own build backend, picks the same files with the same bytes."""
    client = copy_checkout(ROOT, tmp_path / "checkout").root / "client"
    found = read_package(client).files
    command = [
        ROOT / ".venv/bin/uv",
        "build",
        "--wheel",
        "--quiet",
        "--no-build-isolation",
        "--out-dir",
        tmp_path,
    ]
    subprocess.run([*command, client], check=True, env=os.environ | {"VIRTUAL_ENV": str(ROOT / ".venv")})
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        expected = {name: archive.read(name) for name in archive.namelist()}

    assert found.keys() == expected.keys() - {f"ai_client-{VERSION}.dist-info/top_level.txt"}
    assert {n: c for n, c in found.items() if "dist-info" not in n} == {
        n: c for n, c in expected.items() if "dist-info" not in n
    }
    assert f"\nVersion: {VERSION}\n".encode() in found[f"ai_client-{VERSION}.dist-info/METADATA"]


def test_the_client_s_declared_dependencies_are_those_that_the_lock_is_made_from():
    """client/pyproject.toml and requirements/client.in name the same packages with the same bounds."""
    declared = tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]["dependencies"]
    lines = (ROOT / "requirements/client.in").read_text().splitlines()
    assert sorted(d.replace("'", '"') for d in declared) == sorted(
        line for line in lines if line and not line.startswith("#")
    )
