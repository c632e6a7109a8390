import os
import subprocess
from pathlib import Path

import pytest

from infra.command import child, child_with_aws

PYTHON = """#!/bin/sh
printf '%s\\n' "$@" >arguments
cat >stdin
env >environment
cat <&3 >descriptor 2>/dev/null || true
"""
ENV = """#!/bin/sh
printf '%s\\n' "$@" >>env-arguments
exec /usr/bin/env "$@"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project whose Python writes down what it was given, with an `env` that does the same."""
    for path, text in ((".venv/bin/python", PYTHON), ("bin/env", ENV)):
        program = tmp_path / path
        program.parent.mkdir(parents=True)
        program.write_text(text)
        program.chmod(0o755)
    return tmp_path


def run(line: str, folder: Path, **environment: str) -> None:
    """Runs a shell line as the command plugin does."""
    inherited = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "SURPRISE": "x", **environment}
    subprocess.run(["/bin/sh", "-c", line], cwd=folder, env=inherited, input=b"order", timeout=30, check=True)


def test_a_child_gets_its_order_and_a_clean_environment(folder: Path) -> None:
    """Nothing but the names that are let through; a name that is not set stays unset."""
    run(child("infra.run"), folder, HTTP_PROXY="http://proxy", AWS_SECRET_ACCESS_KEY="very secret")
    held = (folder / "environment").read_text().splitlines()
    assert {line.partition("=")[0] for line in held} - {"PWD", "OLDPWD", "SHLVL", "_"} == {
        "PATH",
        "LANG",
        "HTTP_PROXY",
    }
    assert (folder / "stdin").read_text() == "order"


def test_aws_variables_come_through_an_open_file_and_in_no_argument(folder: Path) -> None:
    """What is secret among them would be seen by every user of the machine in the arguments of `env`."""
    secret = "very 'secret' \"$HOME\" \\n `id`"
    run(
        child_with_aws("infra.run"),
        folder,
        AWS_SECRET_ACCESS_KEY=secret,
        AWS_REGION="eu-central-1",
        XAWS_="no",
    )
    given = (folder / "descriptor").read_text().splitlines()
    assert sorted(line for line in given if line) == [
        "AWS_REGION=eu-central-1",
        f"AWS_SECRET_ACCESS_KEY={secret}",
    ]
    assert (folder / "arguments").read_text().splitlines() == ["-m", "infra.run", "3"]
    assert (folder / "stdin").read_text() == "order"
    for name in ("arguments", "env-arguments", "environment"):
        assert "secret" not in (folder / name).read_text(), name


def test_without_aws_variables_the_child_starts_all_the_same(folder: Path) -> None:
    """A profile in the home folder is enough."""
    run(child_with_aws("infra.run"), folder)
    assert (folder / "descriptor").read_text().strip() == ""
    assert (folder / "arguments").exists()
