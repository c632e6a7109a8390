"""Every command in tools/, typed wrongly: what is wrong and what to write, no traceback, nothing done."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.infra.stacks import PROJECT

# What is typed, and what the answer names.
WRONG = {
    "tools/actionlint/build nope": "takes no words",
    "tools/artefact/build --tag x": "tag 'x' is unknown; write cp3",
    "tools/artefact/licences --nope": "unrecognized arguments: --nope",
    "tools/artefact/oci": "required: out",
    "tools/artefact/releases nope": "nope is no build",
    "tools/artefact/sbom --nope": "unrecognized arguments: --nope",
    "tools/audit --nope": "unrecognized arguments: --nope",
    "tools/engine/build --nope": "unrecognized arguments: --nope",
    "tools/env": "no command; use tools/env",
    "tools/lock nope": "takes no words",
    "tools/move-in": "required: inventory",
    "tools/move-in FOLDER --stack x": "is a folder; name the inventory file in it",
    "tools/new-stack": "required: name",
    "tools/new-stack 'a b'": "is not a valid name for a stack",
    "tools/new-stack production": "exists already",
    "tools/packages nope": "write tools/packages, or tools/packages nginx",
    "tools/pictures --nope": "unrecognized arguments: --nope",
    "tools/pictures --up FOLDER/none": "can't be used",
    "tools/plan-comment FOLDER": "FOLDER can't be read (Is a directory)",
    "tools/plan-comment --limit 1": "too small",
    "tools/post-comment": "required: comment, --number",
    "tools/probe/build nope": "takes no words",
    "tools/reference --nope": "unrecognized arguments: --nope",
    "tools/release --nope": "unrecognized arguments: --nope",
    "tools/run": "write for example tools/run artefact.sbom",
    "tools/run nope": "nope is no module",
    "tools/setup": "write tools/setup control or tools/setup dev",
    "tools/setup nope": "write tools/setup control or tools/setup dev",
    "tools/site --nope": "unrecognized arguments: --nope",
    "tools/up": "usage: tools/up STACK",
    "tools/venv": "write for example tools/venv audit",
    "tools/venv nope": "requirements/nope.txt is missing; name one of",
}
# All tests, whose words are pytest's.
_NONE = {"tools/test"}


def test_every_command_is_typed_wrongly() -> None:
    """A new one needs its line here."""
    programs = {
        path.relative_to(PROJECT).as_posix()
        for path in (PROJECT / "tools").rglob("*")
        if path.is_file() and os.access(path, os.X_OK)
    }
    assert programs - _NONE == {line.split()[0] for line in WRONG}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_word_is_answered_by_what_to_write(line: str, tmp_path: Path) -> None:
    """At once: nothing is set up, fetched or written first."""
    done = subprocess.run(
        ["/bin/sh", "-c", line.replace("FOLDER", str(tmp_path))],
        cwd=PROJECT,
        env=os.environ | {"COLUMNS": "80"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert WRONG[line].replace("FOLDER", str(tmp_path)) in " ".join(said.split()), said
    for noise in ("Traceback", "[Errno", "installing", "unbound", "parameter not set"):
        assert noise not in said, said


def test_the_dev_stack_without_its_settings_is_told_where_they_are(tmp_path: Path) -> None:
    """Pulumi itself says only that a passphrase is missing."""
    own = {name: text for name, text in os.environ.items() if not name.startswith("PULUMI_CONFIG_PASSPHRASE")}
    done = subprocess.run(
        ["tools/up", "dev", "--nope"],
        cwd=PROJECT,
        env=own | {"XDG_STATE_HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert "use 'make up', or 'tools/env --dev tools/up dev'" in done.stderr


def test_a_missing_home_is_named_with_what_to_set() -> None:
    """As some CI runners and service managers start programs; not in the shell's own words."""
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    done = subprocess.run(
        [PROJECT / "tools/env", "true"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr == "env: HOME is not set; set it to your home folder, where caches and state are kept\n"
    )
