"""Which licences may reach a host, and how the list names those that may not."""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.tools.artefact_checkout import ROOT
from tools.artefact import spdx
from tools.artefact.build import build
from tools.artefact.components import Component, Embedded
from tools.artefact.licences import ALLOWED, Row, objection, rows
from tools.artefact.tags import DEFAULT_TAGS

ALLOW = frozenset({"MIT", "Apache-2.0"})


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [ROOT / "tools/artefact/licences", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def write_tree(path: Path, *, metadata: str, sbom: dict | None = None) -> Path:
    """A packed tree with one package."""
    files = {"METADATA": metadata.encode(), "RECORD": b""}
    if sbom:
        files["sboms/native.cyclonedx.json"] = json.dumps(sbom).encode()
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"lib/thing-1.dist-info/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_everything_that_hosts_install_is_under_an_allowed_licence():
    """The real trees pass, and the list names the client and its dependencies."""
    build(out=None, tags=DEFAULT_TAGS)
    result = run()

    assert (result.returncode, [line for line in result.stderr.splitlines() if "artefact:" not in line]) == (
        0,
        [],
    )
    listed = {line.split("\t")[0]: line.split("\t")[2] for line in result.stdout.splitlines()}
    assert listed["ai-client"] == "Apache-2.0"
    assert listed["certifi"] == "MPL-2.0"
    assert {"aiohttp", "httptools", "httpx", "msgspec", "multidict", "redis", "uvloop", "yarl"} <= set(listed)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (
            "License-Expression: GPL-3.0-only",
            "thing 1 is under GPL-3.0-only, and GPL-3.0-only is not allowed",
        ),
        (
            "License-Expression: MIT AND LGPL-2.1+",
            "is under MIT AND LGPL-2.1+, and LGPL-2.1-or-later is not allowed",
        ),
        ("Summary: no licence at all", "thing 1 names no licence; read its sources"),
        ("License: Copyright of somebody", "thing 1 names no licence"),
        ("License-Expression: MIT OR", "thing 1 has a licence that can't be read"),
        ("Classifier: License :: OSI Approved :: GNU Affero General Public License v3", "names no licence"),
    ],
)
def test_a_licence_outside_the_list_fails_and_names_the_package(metadata, expected, tmp_path):
    """The message has the package, its licence and the remedy."""
    tree = write_tree(
        tmp_path / "t.tar.gz", metadata=f"Metadata-Version: 2.4\nName: thing\nVersion: 1\n{metadata}\n"
    )

    result = run(tree)

    assert result.returncode == 1
    assert expected in result.stderr
    assert "tools/artefact/" in result.stderr


def test_a_crate_inside_a_native_module_counts_too(tmp_path):
    """What a package compiles in is what a host runs."""
    sbom = {
        "components": [
            {
                "purl": "pkg:cargo/bad@2",
                "name": "bad",
                "version": "2",
                "licenses": [{"license": {"id": "AGPL-3.0-only"}}],
            },
            {"purl": "pkg:cargo/good@1", "name": "good", "version": "1", "licenses": [{"expression": "MIT"}]},
        ]
    }
    metadata = "Metadata-Version: 2.4\nName: thing\nVersion: 1\nLicense-Expression: MIT\n"

    result = run(write_tree(tmp_path / "t.tar.gz", metadata=metadata, sbom=sbom))

    assert result.returncode == 1
    assert [line.split(";")[0] for line in result.stderr.splitlines()] == [
        "licences: bad 2 (inside thing) is under AGPL-3.0-only, and AGPL-3.0-only is not allowed"
    ]


@pytest.mark.parametrize(
    ("expression", "against"),
    [
        ("MIT", set()),
        ("GPL-2.0-only", {"GPL-2.0-only"}),
        ("GPL-2.0-only OR MIT", set()),
        ("MIT AND GPL-2.0-only", {"GPL-2.0-only"}),
        ("GPL-2.0-only OR MIT AND LGPL-3.0-only", {"GPL-2.0-only", "LGPL-3.0-only"}),
        ("(GPL-2.0-only OR MIT) AND Apache-2.0", set()),
        ("Apache-2.0 WITH LLVM-exception", set()),
        ("GPL-2.0-only WITH Classpath-exception-2.0", {"GPL-2.0-only"}),
        ("Apache-2.0+", set()),
        ("MIT OR Apache-2.0 OR LGPL-2.1-or-later", set()),
    ],
)
def test_an_expression_is_judged_as_spdx_means_it(expression, against):
    """AND binds before OR, one allowed alternative is enough, exceptions only grant."""
    assert spdx.refused(expression, allowed=ALLOW) == against


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MIT AND",
        "OR MIT",
        "(MIT",
        "MIT)",
        "MIT Apache-2.0",
        "MIT WITH",
        "MIT, BSD",
        "MIT WITH AND MIT",
        "BSD",
    ],
)
def test_what_is_no_expression_is_an_error(text):
    """A licence that can't be read is never taken for an allowed one."""
    with pytest.raises(spdx.ExpressionError):
        spdx.refused(text, allowed=ALLOW)


@pytest.mark.parametrize(
    ("expression", "text", "classifiers", "meant"),
    [
        ("MIT", "GPL", [], "MIT"),
        (None, "Apache 2.0", [], "Apache-2.0"),
        (None, "BSD-3-Clause", [], "BSD-3-Clause"),
        (None, "BSD", [], None),
        (None, "MIT License", ["License :: OSI Approved :: Apache Software License"], "MIT"),
        (
            None,
            None,
            ["License :: OSI Approved :: MIT License", "License :: OSI Approved :: Apache Software License"],
            "Apache-2.0 AND MIT",
        ),
        (
            None,
            None,
            ["License :: OSI Approved :: MIT License", "License :: Other/Proprietary License"],
            None,
        ),
        (None, "a whole licence text, clause by clause", [], None),
        (None, None, [], None),
    ],
)
def test_older_metadata_is_read_without_guessing(expression, text, classifiers, meant):
    """Only words that name one licence exactly count; the newest field goes first."""
    assert spdx.expression_of(expression=expression, text=text, classifiers=classifiers) == meant


def test_a_package_in_several_trees_is_listed_once():
    """The list is of things, not of trees."""
    component = Component("thing", "1", "MIT", "", (), "", (Embedded("pkg:cargo/a@1", "a", "1", "MIT"),))
    assert rows([component, component]) == [Row("", "thing", "1", "MIT"), Row("thing", "a", "1", "MIT")]


def test_no_licence_that_binds_the_programs_beside_it_is_allowed():
    """The allow-list itself holds no GPL of any kind."""
    assert not {name for name in ALLOWED if "GPL" in name}
    assert objection(Row("", "thing", "1", "MIT"), allowed=ALLOWED) is None
