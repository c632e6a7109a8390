"""The workflows' own commands, on the real engine: stacks without hosts, or whose hosts are never contacted."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ci.workflows import Job, Runner, holds, load
from tests.fleet.clones import PASSPHRASE, Clone
from tests.infra.stacks import KEY, shipped
from tests.tools.forge import TOKEN, Forge, running

pytestmark = pytest.mark.engine

MARKER = "<!-- fleet-plan: production -->\n"
NO_HOSTS = {"environment": "production", "groups": {"ai_api_clients": {"hosts": {}}}}


@pytest.fixture
def forge() -> Iterator[Forge]:
    with running() as server:
        yield server


@pytest.fixture
def runner(checkout: Clone, forge: Forge, tmp_path: Path) -> Runner:
    environ = checkout.environment() | {"GITHUB_API_URL": forge.url, "GITHUB_REPOSITORY": "us/fleet"}
    for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "AI_CLIENT_FLEET_STACK", "SSH_AUTH_SOCK"):
        environ.pop(name, None)
    github: dict[str, Any] = {
        "repository": "us/fleet",
        "server_url": "https://github.example",
        "run_id": "41",
        "token": TOKEN,
        "event": {"pull_request": {"number": 7, "base": {"sha": "0" * 40}}},
    }
    contexts = {
        "vars": {"PULUMI_BACKEND_URL": f"file://{checkout.state}", "FLEET_DRIFT_ISSUE": "7"},
        "secrets": {"PULUMI_CONFIG_PASSPHRASE": PASSPHRASE},
        "github": github,
        "inputs": {},
    }
    return Runner(checkout.folder, tmp_path, contexts, environ)


def pull_request(runner: Runner) -> tuple[Job, Job]:
    workflow = load("fleet-preview.yml")
    preview = runner.run(workflow, "preview")
    return preview, runner.run(workflow, "comment", needs={"preview": preview})


def test_a_pull_request_gets_one_comment_that_is_updated(
    checkout: Clone, runner: Runner, forge: Forge
) -> None:
    """The shipped production stack has no key and no host keys: its plan is what `up` still needs."""
    checkout.configure(shipped("production"))
    for _ in range(2):
        preview, comment = pull_request(runner)
        assert (preview.failed, comment.failed) == ([], [])
    (posted,) = forge.comments
    assert posted["body"].startswith(MARKER)
    assert posted["body"].count("⛔ blocked") == 7
    assert "fleet:apiKey: no upstream key" in posted["body"]
    assert "https://github.example/us/fleet/actions/runs/41" in posted["body"]
    assert sorted(path.name for path in runner.artefact("fleet-plan").iterdir()) == [
        "comment.md",
        "plan.html",
    ]


def test_a_preview_that_fails_says_so_in_the_comment(checkout: Clone, runner: Runner, forge: Forge) -> None:
    """The job fails, and the comment of the push before does not stay."""
    forge.add(f"{MARKER}all was well")
    checkout.configure(
        {"environment": "production", "groups": {"api": {"hosts": {"a": {"adress": "10.0.0.1"}}}}}
    )
    preview, comment = pull_request(runner)
    assert preview.failed == ["Preview"]
    assert comment.failed == []
    (posted,) = forge.comments
    assert "> The preview failed" in posted["body"]
    assert "fleet:groups.api.hosts.a.address: is missing" in posted["body"]


def test_a_pull_request_whose_set_up_fails_gets_a_comment_too(runner: Runner, forge: Forge) -> None:
    """Nothing was previewed then; a wrong passphrase is the same."""
    runner.contexts["secrets"] = {"PULUMI_CONFIG_PASSPHRASE": "wrong"}
    preview, comment = pull_request(runner)
    assert preview.failed[:1] == ["Preview"]
    assert comment.failed == []
    assert "> The preview failed" in forge.comments[0]["body"]


@pytest.mark.parametrize(("head", "is_run"), [("us/fleet", True), ("somebody/fleet", False)])
def test_a_fork_is_not_previewed(runner: Runner, head: str, is_run: bool) -> None:
    """Its code would run with this repository's secrets."""
    runner.contexts["github"]["event"]["pull_request"]["head"] = {"repo": {"full_name": head}}
    condition = load("fleet-preview.yml")["jobs"]["preview"]["if"]
    assert holds(condition, runner.contexts) is is_run


def test_the_ssh_key_is_in_an_agent_that_ends_with_the_job(
    runner: Runner, checkout: Clone, tmp_path: Path
) -> None:
    """It is written to no file, is there while the preview runs, and no agent outlives the job."""
    checkout.configure(shipped("production"))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    private = (tmp_path / "key").read_text()
    (tmp_path / "key").unlink()
    runner.contexts["secrets"]["FLEET_PROBE_SSH_KEY"] = private
    workflow = load("fleet-preview.yml")
    steps = workflow["jobs"]["preview"]["steps"]
    steps.insert(-1, {"name": "Look", "run": "ssh-add -l"})
    job = runner.run(workflow, "preview")
    assert job.failed == []
    assert "(ED25519)" in job.log
    pid = (tmp_path / "temp" / "preview" / "agent.sh").read_text().split("SSH_AGENT_PID=")[1].split(";")[0]
    _wait(lambda: has_ended(pid))
    inside = private.splitlines()[1]
    assert inside not in job.log
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in written if inside in path.read_text(errors="replace")] == []


def has_ended(pid: str) -> bool:
    """Whether a process runs no more; one that nobody waits for stays in the table."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def _wait(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        threading.Event().wait(0.05)


def test_up_carries_out_the_plan_that_was_shown(checkout: Clone, runner: Runner) -> None:
    """Then nothing is left to change, and the next run has no `up`."""
    checkout.configure(NO_HOSTS)
    workflow = load("fleet-up.yml")
    plan = runner.run(workflow, "plan")
    assert plan.failed == []
    assert plan.outputs["changes"] == "true"
    assert len(plan.outputs["digest"]) == 16
    assert MARKER in plan.summary
    needs = {"needs": {"plan": {"outputs": plan.outputs}}}
    assert holds(workflow["jobs"]["up"]["if"], needs)
    up = runner.run(workflow, "up", needs={"plan": plan})
    assert up.failed == []
    checkout.configure(NO_HOSTS)
    after = runner.run(workflow, "plan")
    assert after.outputs["changes"] == "false"
    assert not holds(workflow["jobs"]["up"]["if"], {"needs": {"plan": {"outputs": after.outputs}}})
    assert "Nothing to change" in after.summary


def test_up_refuses_any_other_plan(checkout: Clone, runner: Runner) -> None:
    """What was approved is what is done: a change after it stops the job before anything is touched."""
    checkout.configure(NO_HOSTS)
    workflow = load("fleet-up.yml")
    plan = runner.run(workflow, "plan")
    plan.outputs["digest"] = "0123456789abcdef"
    up = runner.run(workflow, "up", needs={"plan": plan})
    assert up.failed == ["Up"]
    assert "fleet:requirePlan" in up.log
    checkout.configure(NO_HOSTS)


def test_up_refuses_while_something_is_missing(checkout: Clone, runner: Runner) -> None:
    """The shipped production stack, merged as it is."""
    checkout.configure(shipped("production"))
    workflow = load("fleet-up.yml")
    plan = runner.run(workflow, "plan")
    assert plan.failed == []
    up = runner.run(workflow, "up", needs={"plan": plan})
    assert up.failed == ["Up"]
    assert "fleet:apiKey" in up.log


def test_drift_is_reported_and_fails_the_run(checkout: Clone, runner: Runner, forge: Forge) -> None:
    """In the run's page, and in the issue that the variable names; a fleet as declared passes."""
    workflow = load("fleet-drift.yml")
    checkout.configure(shipped("production"))
    drift = runner.run(workflow, "drift")
    assert drift.failed == ["Report"]
    assert "⛔ blocked" in drift.summary
    assert runner.run(workflow, "issue", needs={"drift": drift}).failed == []
    checkout.configure(NO_HOSTS)
    checkout.pulumi("up", "--yes", "--skip-preview", "--stack", "production")
    calm = runner.run(workflow, "drift")
    assert calm.failed == []
    assert runner.run(workflow, "issue", needs={"drift": calm}).failed == []
    (posted,) = forge.comments
    assert "Nothing to change" in posted["body"]


@pytest.fixture
def remote(checkout: Clone, tmp_path: Path) -> Path:
    """The checkout as a repository, and where it pushes to."""
    bare = tmp_path / "remote.git"
    checkout.run("rm", "-rf", ".git")
    checkout.run("git", "init", "--quiet", "--initial-branch=main")
    checkout.run("git", "add", "--all")
    checkout.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", "all")
    checkout.run("git", "init", "--quiet", "--bare", str(bare))
    checkout.run("git", "remote", "add", "origin", str(bare))
    checkout.run("git", "push", "--quiet", "origin", "main")
    return bare


@pytest.mark.parametrize(("step", "written"), [("next", "apiKeyNext"), ("switch", "apiKey")])
def test_a_key_is_rotated_by_a_branch(
    checkout: Clone, runner: Runner, remote: Path, step: str, written: str
) -> None:
    """The stack's file alone changes, the key is encrypted in it, and nothing shows it."""
    runner.contexts["secrets"]["FLEET_NEW_API_KEY"] = KEY
    runner.contexts["inputs"] = {"key": step}
    job = runner.run(load("fleet-rotate.yml"), "branch")
    assert job.failed == []
    assert "https://github.example/us/fleet/compare/fleet-rotate-41?expand=1" in job.summary
    changed = checkout.run("git", f"--git-dir={remote}", "diff", "main", "fleet-rotate-41", "--stat").output
    assert "1 file changed" in changed
    shown = checkout.run(
        "git", f"--git-dir={remote}", "show", "fleet-rotate-41:Pulumi.production.yaml"
    ).output
    assert f"fleet:{written}:" in shown
    assert KEY not in job.log + job.summary + shown + changed
    assert checkout.pulumi("config", "get", written, "--stack", "production").output.strip() == KEY
    assert step == "next" or "apiKeyNext" not in shown
    checkout.run("git", "switch", "--quiet", "main")


def test_a_rotation_without_a_key_says_where_it_belongs(runner: Runner, remote: Path) -> None:
    """Before anything is written."""
    runner.contexts["inputs"] = {"key": "next"}
    job = runner.run(load("fleet-rotate.yml"), "branch")
    assert job.failed == ["Write the key into the stack's file"]
    assert "FLEET_NEW_API_KEY is not set" in job.log
