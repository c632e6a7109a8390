"""`make new-stack`, and a stack made by it on the real engine."""

import json
import os
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from infra.errors import SettingsError
from tests.fleet.clones import clone
from tests.infra.stacks import KEY, PROJECT
from tools.stacks import stack_file
from tools.stacks.new_stack import make, text

pytestmark = pytest.mark.slow


def new_stack(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [str(PROJECT / "tools/new-stack"), *words]
    return subprocess.run(argv, cwd="/", capture_output=True, text=True, check=False)


def test_a_new_stack_is_written_and_accepted(tmp_path: Path) -> None:
    """The file is there, the program accepts it, and the user is told what comes next."""
    done = new_stack("staging", "--folder", str(tmp_path))
    assert done.returncode == 0
    assert "Pulumi.staging.yaml is written" in done.stdout
    settings = stack_file.load((tmp_path / "Pulumi.staging.yaml").read_text(), stack="staging")
    assert settings.environment == "staging"
    assert list(settings.groups["ai_api_clients"].hosts) == ["api-staging-01"]


@pytest.mark.parametrize("name", ["staging", "x", "eu-central-2", "a" * 32])
def test_every_good_name_gives_a_file_as_the_schema_says(name: str) -> None:
    """The template is valid for every name, and points editors at the schema on its first line."""
    written = text(name)
    schema = json.loads((PROJECT / "docs/reference/stack.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(written))
    reference = written.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (PROJECT / reference).is_file()


def test_the_lines_that_are_commented_out_are_right_too(tmp_path: Path) -> None:
    """A user who takes a comment sign away gets a key that the program knows."""
    lines = [
        line.replace("# ", "", 1) if line.lstrip().startswith("# ") and _is_yaml(line) else line
        for line in text("staging").splitlines()
        if "AAAA…" not in line
    ]
    settings = stack_file.load("\n".join(lines), stack="staging")
    assert settings.account
    assert set(settings.jump_hosts) == {"jump-staging-01"}
    assert settings.groups["ai_batch_workers"].vars["ai_batch_mode"] is True
    assert settings.groups["ai_api_clients"].jump == ("jump-staging-01",)


def _is_yaml(line: str) -> bool:
    words = line.split("# ", 1)[1].split()
    return bool(words) and words[0].endswith(":")


@pytest.mark.parametrize(
    "name",
    ["", "Staging", "-x", "x-", "9lives", "a b", "../x", "a" * 33, "stäging", "x\n", "$(id)", "{{ 1 }}"],
)
def test_a_name_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    """Nothing is written, and the answer says what a name is."""
    done = new_stack(f"--folder={tmp_path}", "--", name)
    assert done.returncode == 1
    assert done.stderr.startswith("new-stack: ")
    assert "name" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_stack_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    """The second call fails and leaves the first one's file as it is."""
    make("staging", tmp_path).write_text("mine")
    done = new_stack("staging", f"--folder={tmp_path}")
    assert done.returncode == 1
    assert "Pulumi.staging.yaml exists already" in done.stderr
    assert (tmp_path / "Pulumi.staging.yaml").read_text() == "mine"


def test_a_folder_that_is_not_there_is_an_error_without_traceback(tmp_path: Path) -> None:
    """What the system said is passed on."""
    done = new_stack("staging", f"--folder={tmp_path / 'nowhere'}")
    assert done.returncode == 1
    assert "No such file or directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_make_new_stack_takes_the_name(tmp_path: Path) -> None:
    """Without a name, `make new-stack` says how to give one."""
    line = next(
        line for line in (PROJECT / "Makefile").read_text().splitlines() if "tools/new-stack" in line
    ).strip("\t@")
    environment = {**os.environ, "NAME": ""}
    done = subprocess.run(
        ["/bin/sh", "-c", line.replace("$(NAME)", "$NAME")],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "make new-stack NAME=staging" in done.stderr


def test_a_file_that_the_program_refuses_is_told_as_the_program_tells_it() -> None:
    """Settings and house rules both have their say."""
    with pytest.raises(SettingsError, match="unknown key"):
        stack_file.load(text("x").replace("\nconfig:", "\nconfig:\n  fleet:maxRemoval: 1"), stack="x")
    with pytest.raises(SettingsError, match="ai_verify_ssl"):
        stack_file.load(text("x").replace("ai_log_level: INFO", "ai_verify_ssl: false"), stack="x")


@pytest.mark.engine
def test_a_new_stack_previews_on_the_real_engine(tmp_path: Path) -> None:
    """Made, initialised, given a key: the preview lists the host, says what is missing, and keeps the comments."""
    checkout = clone(tmp_path / "clone", state=tmp_path / "state", stack="staging")
    path = make("staging", checkout.folder)
    checkout.pulumi("stack", "init", "staging")
    checkout.pulumi("config", "set", "--secret", "apiKey", "--stack", "staging", stdin=KEY)
    run = checkout.preview("--stack", "staging")
    assert "claim-api-staging-01" in run.changed()
    assert "no pinned host key for api-staging-01" in run.messages()
    assert KEY not in path.read_text() + run.output
    assert "# The most hosts that one run may remove." in path.read_text()
