"""The bill of materials, checked with the schema's own library."""

import json
import platform
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.tools.artefact_checkout import ROOT
from tools.artefact.build import build
from tools.artefact.components import Component, Embedded
from tools.artefact.lockfile import Pin, read_pins
from tools.artefact.sbom import debian_purl, document
from tools.artefact.tags import DEFAULT_TAGS, OwnTag, Tag

pytestmark = pytest.mark.slow

LOCK = ROOT / "requirements" / "client.txt"


@pytest.fixture(scope="module")
def folder() -> Path:
    return build(out=None, tags=DEFAULT_TAGS)


@pytest.fixture(scope="module")
def bill(folder) -> dict:
    return json.loads(write(folder))


def write(folder: Path) -> str:
    command = [ROOT / "tools/artefact/sbom", "--artefact", folder]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_document_obeys_the_cyclonedx_schema(folder, tmp_path):
    """The reference library finds nothing wrong, and does find a planted fault."""
    code = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()))
"""
    venv = subprocess.run(
        [ROOT / "tools/venv", "audit"], capture_output=True, text=True, check=True, timeout=300
    )
    text = write(folder)

    def complaint(document: str) -> str:
        command = [f"{venv.stdout.strip()}/bin/python", "-c", code]
        return subprocess.run(
            command, input=document, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert complaint(text) == "None"
    assert "colour" in complaint(text.replace('"description"', '"colour"', 1))


def test_the_same_trees_give_the_same_document(folder):
    """No time, no random number: two runs are equal byte for byte."""
    assert write(folder) == write(folder)
    assert str(folder) not in write(folder)


def test_it_names_exactly_what_the_trees_hold(folder, bill):
    """Every distribution of every tree, once, and nothing else."""
    held = set()
    for tag in DEFAULT_TAGS:
        with tarfile.open(folder / f"{tag}.tar.gz") as tar:
            held |= {
                name.split("/")[1].removesuffix(".dist-info")
                for name in tar.getnames()
                if ".dist-info/" in name
            }

    listed = [bill["metadata"]["component"], *bill["components"]]
    assert sorted(f"{c['name'].replace('-', '_')}-{c['version']}" for c in listed) == sorted(held)


def test_each_component_has_its_purl_licence_and_locked_hashes(bill):
    """Hashes are the lock's, so that a published file can be told from another."""
    locked = {pin.name: pin for pin in read_pins(LOCK.read_text())}
    for component in bill["components"]:
        pin = locked[component["name"]]
        assert component["purl"] == f"pkg:pypi/{pin.name}@{pin.version}"
        assert component["licenses"][0]["expression"]
        assert [entry["content"] for entry in component["hashes"]] == list(pin.sha256s)
        assert len(pin.sha256s) > 0


def test_native_code_inside_a_package_is_listed_below_it():
    """A package that names the crates in its module: they are part of what hosts run."""
    tag = Tag(11, "x86_64")
    crate = Embedded("pkg:cargo/ahash@0.8", "ahash", "0.8", "MIT")
    client = Component("ai-client", "1", "Apache-2.0", "", (), "00", ())
    core = Component("core", "1", "MIT", "", (), "00", (crate,))
    made = document({tag: [client, core]}, index={"trees": {}}, pins=[Pin("core", "1", ("ab" * 32,))])

    (library,) = made["components"]
    assert [part["purl"] for part in library["components"]] == ["pkg:cargo/ahash@0.8"]


def test_the_dependencies_are_those_of_the_interpreters_in_question(bill):
    """An edge for each requirement that applies; extras and other platforms make none."""
    edges = {
        entry["ref"].split("/")[1].split("@")[0]: entry.get("dependsOn", []) for entry in bill["dependencies"]
    }
    needed = {ref.split("/")[1].split("@")[0] for ref in edges["ai-client"]}
    project = tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]
    assert needed == {Requirement(text).name for text in project["dependencies"]}
    assert "pkg:pypi/multidict" in " ".join(edges["yarl"])


def test_the_digests_of_the_trees_are_in_it(folder, bill):
    """A host's release can be traced to its bill."""
    index = json.loads((folder / "index.json").read_text())
    properties = {p["name"]: p["value"] for p in bill["metadata"]["component"]["properties"]}
    tag = DEFAULT_TAGS[0]
    assert properties[f"ai-client-fleet:tar_sha256:{tag}"] == index["trees"][str(tag)]["tar_sha256"]


def test_a_tree_that_the_lock_does_not_explain_is_refused(tmp_path):
    """A build older than the lock has no bill; the error names the package."""
    out = build(out=tmp_path / "out", tags=[Tag(11, "x86_64")])
    lock = tmp_path / "other.txt"
    lock.write_text("aiohttp==1.0\n")

    command = [ROOT / "tools/artefact/sbom", "--artefact", out, "--lock", lock]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert result.returncode == 1
    assert result.stdout == ""
    assert "is in the trees but not in" in result.stderr


def test_a_folder_that_is_no_build_is_refused(tmp_path):
    """The error names the folder."""
    command = [ROOT / "tools/artefact/sbom", "--artefact", tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 1
    assert f"{tmp_path} is no build; make one by tools/artefact/build" in result.stderr


def test_the_interpreters_packages_are_in_it():
    """Of a tree that brings its own Python: each package of Debian with the version that apt fetched, by its purl."""
    tag = OwnTag(platform.machine())
    built = build(out=None, tags=[tag])
    packages = json.loads((built / "index.json").read_text())["trees"][str(tag)]["packages"]
    found = {
        (component["name"], component["version"])
        for component in json.loads(write(built))["components"]
        if component["purl"].startswith("pkg:deb/debian/") and "distro=trixie" in component["purl"]
    }
    assert found == set(packages.items())
    assert {"libc6", "libssl3t64", "python3.13-minimal"} <= {name for name, _ in found}


def test_a_version_of_debian_is_escaped_in_its_purl():
    """Plus signs are escaped; colons and tildes stay, as the purl specification wants them."""
    purl = debian_purl("libstdc++6", "1:14.2.0-19~deb13u1", suite="trixie", machine="x86_64")
    assert purl.to_string() == "pkg:deb/debian/libstdc%2B%2B6@1:14.2.0-19~deb13u1?arch=amd64&distro=trixie"
