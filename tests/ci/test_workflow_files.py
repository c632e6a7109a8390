"""What holds of every workflow that users copy, read as data."""

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.ci.workflows import FOLDER, NAMES, load
from tests.infra.stacks import PROJECT

WRITES = {
    ("fleet-preview.yml", "comment"): {"pull-requests"},
    ("fleet-drift.yml", "issue"): {"issues"},
    ("fleet-rotate.yml", "branch"): {"contents"},
}


def steps() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name in NAMES:
        for job, declared in load(name)["jobs"].items():
            yield from ((name, job, step) for step in declared["steps"])


@pytest.mark.engine
def test_actionlint_finds_nothing() -> None:
    """Syntax, expressions, contexts, events, and what a shell would stumble over."""
    built = subprocess.run(
        [PROJECT / "tools/actionlint/build"], stdout=subprocess.PIPE, text=True, check=True, timeout=600
    )
    done = subprocess.run(
        [built.stdout.strip(), "-no-color", *(str(FOLDER / name) for name in NAMES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_every_action_is_pinned_by_its_commit_and_says_its_version() -> None:
    """A tag can be moved; the same action is the same commit in every file."""
    commits: dict[str, set[str]] = {}
    for name in NAMES:
        text = (FOLDER / name).read_text(encoding="utf-8")
        used = re.findall(r"uses: (\S+)(.*)", text)
        assert used
        for action, comment in used:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action
            commits.setdefault(action.split("@")[0], set()).add(action + comment)
    assert all(len(pins) == 1 for pins in commits.values())


@pytest.mark.parametrize("name", NAMES)
def test_jobs_may_do_no_more_than_they_must(name: str) -> None:
    """Nothing by default; a job that writes is one that does nothing else; no job runs without an end."""
    workflow = load(name)
    assert workflow["permissions"] == {}
    for job, declared in workflow["jobs"].items():
        writes = {key for key, level in declared["permissions"].items() if level == "write"} - {"id-token"}
        assert writes == WRITES.get((name, job), set())
        assert declared["timeout-minutes"] <= 120
        if writes - {"contents"}:
            assert "secrets." not in yaml.safe_dump(declared)


def test_no_pull_request_of_a_fork_is_run() -> None:
    """And the event that would run one with secrets is used nowhere."""
    for name in NAMES:
        assert "pull_request_target" not in (FOLDER / name).read_text(encoding="utf-8")
    condition = load("fleet-preview.yml")["jobs"]["preview"]["if"]
    assert condition == "github.event.pull_request.head.repo.full_name == github.repository"


def test_whoever_has_secrets_is_in_an_environment() -> None:
    """So that branches and reviewers can be asked for; what changes hosts is in one of its own."""
    environments = {}
    for name in NAMES:
        for job, declared in load(name)["jobs"].items():
            if "secrets." in yaml.safe_dump(declared):
                environments[name, job] = declared["environment"]
    assert environments == {
        ("fleet-preview.yml", "preview"): "fleet-preview",
        ("fleet-up.yml", "plan"): "fleet-read",
        ("fleet-up.yml", "up"): "fleet-production",
        ("fleet-drift.yml", "drift"): "fleet-read",
        ("fleet-rotate.yml", "branch"): "fleet-rotation",
    }


def test_no_expression_is_in_a_script() -> None:
    """Text of others would become the script's own words; it comes in variables."""
    for name, _, step in steps():
        assert "${{" not in step.get("run", ""), name


def test_a_secret_is_given_to_the_one_step_that_needs_it() -> None:
    """Not to a whole job, nor to an action."""
    for name in NAMES:
        workflow = load(name)
        for job, declared in workflow["jobs"].items():
            shown = yaml.safe_dump(
                [workflow.get("env"), declared.get("env"), [s.get("with") for s in declared["steps"]]]
            )
            assert "secrets." not in shown, (name, job)


def test_a_checkout_leaves_no_token_behind() -> None:
    """But where the job pushes."""
    for name, job, step in steps():
        if step.get("uses", "").startswith("actions/checkout@") and (name, job) != (
            "fleet-rotate.yml",
            "branch",
        ):
            assert step["with"]["persist-credentials"] is False


def test_runs_on_one_stack_wait_for_each_other() -> None:
    """And an `up` is never cut off by the next one."""
    groups = {name: load(name)["concurrency"] for name in NAMES}
    assert groups["fleet-up.yml"] == {"group": "fleet-production", "cancel-in-progress": False}
    assert "${{ github.event.pull_request.number }}" in groups["fleet-preview.yml"]["group"]
    assert len({group["group"] for group in groups.values()}) == len(NAMES)
