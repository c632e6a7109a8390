import os
import subprocess
from pathlib import Path

import pytest

from infra.playbook.environment import INHERITED, PROXIES, cleaned
from infra.resources.command import child, child_with_aws

PYTHON = """#!/bin/sh
printf '%s\\n' "$@" >arguments
cat >stdin
env >environment
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


def environment(folder: Path) -> dict[str, str]:
    """What the child saw, without what shells add."""
    lines = (folder / "environment").read_text().splitlines()
    held = dict(line.partition("=")[::2] for line in lines)
    return {name: value for name, value in held.items() if name not in {"PWD", "OLDPWD", "SHLVL", "_"}}


def test_a_child_gets_its_order_and_a_clean_environment(folder: Path) -> None:
    """Nothing but the names that are let through; a name that is not set stays unset."""
    run(
        child("infra.run"),
        folder,
        AWS_SECRET_ACCESS_KEY="very secret",
        ANSIBLE_HOST_KEY_CHECKING="0",
        LC_ALL="C",
    )
    assert environment(folder).keys() == {"PATH", "LANG"}
    assert (folder / "stdin").read_text() == "order"
    assert (folder / "arguments").read_text().splitlines() == ["-m", "infra.run"]


def test_proxies_reach_the_child_in_either_case_and_no_argument(folder: Path) -> None:
    """A login in a proxy's address would be seen by every user of the machine in the arguments of `env`."""
    secret = "http://svc:Pr0xy 'Pass' \"$HOME\" \\n `id`@proxy:3128"
    run(
        child("infra.run"),
        folder,
        HTTPS_PROXY=secret,
        https_proxy="http://lower:case@proxy",
        XHTTP_PROXY="no",
    )
    held = environment(folder)
    assert (held["HTTPS_PROXY"], held["https_proxy"]) == (secret, "http://lower:case@proxy")
    assert "XHTTP_PROXY" not in held
    for name in ("arguments", "env-arguments"):
        assert "proxy:3128" not in (folder / name).read_text()
        assert "lower:case" not in (folder / name).read_text()


def test_aws_variables_reach_the_child_that_asks_aws_and_no_argument(folder: Path) -> None:
    """They are secret, too."""
    secret = "very 'secret' \"$HOME\" \\n `id`"
    run(
        child_with_aws("infra.run"),
        folder,
        AWS_SECRET_ACCESS_KEY=secret,
        AWS_REGION="eu-central-1",
        XAWS_="no",
    )
    held = environment(folder)
    assert (held["AWS_SECRET_ACCESS_KEY"], held["AWS_REGION"]) == (secret, "eu-central-1")
    assert "XAWS_" not in held
    assert (folder / "arguments").read_text().splitlines() == ["-m", "infra.run"]
    assert (folder / "stdin").read_text() == "order"
    for name in ("arguments", "env-arguments"):
        assert "secret" not in (folder / name).read_text(), name


def test_without_any_of_them_the_child_starts_all_the_same(folder: Path) -> None:
    """A profile in the home folder is enough."""
    run(child_with_aws("infra.run"), folder)
    assert environment(folder).keys() == {"PATH", "LANG"}


def test_a_probe_runs_in_the_environment_of_a_deploy(folder: Path) -> None:
    """What the shell line lets through and what a run keeps of its starter's are the same."""
    given = {name: f"value of {name}" for name in (*INHERITED, *PROXIES)} | {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "ANSIBLE_HOST_KEY_CHECKING": "False",
        "LC_ALL": "C",
        "PULUMI_CONFIG_PASSPHRASE": "secret",
    }
    run(child("infra.run"), folder, **given)
    assert environment(folder) == cleaned(given)
