"""The GitLab jobs' own commands, on the real engine, and what holds of the file."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fleet.clones import PASSPHRASE, Clone
from tests.infra.stacks import KEY, PROJECT, shipped
from tests.tools.forge import TOKEN, Forge, running

FILE = PROJECT / "docs" / "ci" / "gitlab" / ".gitlab-ci.yml"
GLOBAL = {"stages", "variables"}
NO_HOSTS = {"environment": "production", "groups": {"ai_api_clients": {"hosts": {}}}}


class _Loader(yaml.SafeLoader):
    """YAML with GitLab's reference to a part of another job."""


_Loader.add_constructor("!reference", lambda loader, node: ("reference", *loader.construct_sequence(node)))


def load() -> dict[str, Any]:
    """The file's jobs, with what they extend put into them."""
    content: dict[str, Any] = yaml.load(FILE.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    return {name: _extended(content, job) if name not in GLOBAL else job for name, job in content.items()}


def _extended(content: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    if "extends" not in job:
        return job
    return {**_extended(content, content[job["extends"]]), **job}


def commands(jobs: dict[str, Any], name: str) -> list[str]:
    """All that a job runs, references replaced."""
    job = jobs[name]
    lines: list[str] = list(job.get("before_script", []))
    for line in job["script"]:
        lines += jobs[line[1]][line[2]] if isinstance(line, tuple) else [line]
    return lines


@dataclass
class Runner:
    """Runs jobs as GitLab's runner does: all commands in one shell, variables in its environment."""

    checkout: Clone
    work: Path
    forge: Forge

    def run(self, name: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """One job, with the variables of its environment."""
        jobs = load()
        script = self.work / "job.sh"
        script.write_text("\n".join(["set -eo pipefail", *commands(jobs, name)]))
        environ = self.checkout.environment() | {
            "CI_PROJECT_DIR": str(self.checkout.folder),
            "CI_BUILDS_DIR": str(self.work),
            "CI_API_V4_URL": self.forge.url,
            "CI_PROJECT_ID": "12",
            "CI_MERGE_REQUEST_IID": "7",
            "CI_JOB_URL": "https://gitlab.example/jobs/1",
            "CI_PIPELINE_ID": "41",
            "PLAN": f"{self.checkout.folder}/.fleet-plan",
            "STACK": "production",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            **variables,
        }
        return subprocess.run(
            ["bash", str(script)],
            cwd=self.checkout.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )

    def outputs(self) -> dict[str, str]:
        """What the job before gave as variables."""
        lines = (self.checkout.folder / ".fleet-plan" / "outputs.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def runner(checkout: Clone, tmp_path: Path) -> Iterator[Runner]:
    checkout.run("rm", "-rf", ".fleet-plan")
    with running() as forge:
        yield Runner(checkout, tmp_path, forge)


@pytest.mark.engine
def test_a_merge_request_gets_one_note_that_is_updated(checkout: Clone, runner: Runner) -> None:
    """The plan of the shipped production stack; failed or not, the note is that of the last push."""
    checkout.configure(shipped("production"))
    assert runner.run("preview").returncode == 0
    assert runner.run("comment", FLEET_COMMENT_TOKEN=TOKEN).returncode == 0
    checkout.configure({"environment": "production", "groups": {}})
    assert runner.run("preview").returncode != 0
    assert runner.run("comment", FLEET_COMMENT_TOKEN=TOKEN).returncode == 0
    (note,) = runner.forge.comments
    assert "fleet:groups" in note["body"]
    assert "> The preview failed" in note["body"]


@pytest.mark.engine
def test_up_carries_out_the_plan_of_the_job_before_it(checkout: Clone, runner: Runner) -> None:
    """And refuses any other; with nothing to change it does nothing."""
    checkout.configure(NO_HOSTS)
    assert runner.run("plan").returncode == 0
    planned = runner.outputs()
    refused = runner.run("up", changes="true", digest="0123456789abcdef")
    assert refused.returncode != 0
    assert "fleet:requirePlan" in refused.stdout
    checkout.configure(NO_HOSTS)
    assert runner.run("up", **planned).returncode == 0
    checkout.configure(NO_HOSTS)
    runner.run("plan")
    assert "nothing to change" in runner.run("up", **runner.outputs()).stdout


@pytest.mark.engine
def test_drift_fails_the_scheduled_pipeline(checkout: Clone, runner: Runner) -> None:
    """After the report, which is whole."""
    checkout.configure(shipped("production"))
    done = runner.run("drift")
    assert done.returncode == 1
    assert done.stdout.index("⛔ blocked") < done.stdout.index("not as declared")


@pytest.mark.engine
def test_a_key_is_rotated_by_a_branch_that_is_pushed(checkout: Clone, runner: Runner, tmp_path: Path) -> None:
    """The token goes to git by a helper, and neither it nor the key is printed or in an argument."""
    checkout.configure(shipped("production"))
    bare = tmp_path / "remote.git"
    checkout.run("rm", "-rf", ".git")
    checkout.run("git", "init", "--quiet", "--initial-branch=main")
    checkout.run("git", "add", "--all")
    checkout.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", "all")
    checkout.run("git", "init", "--quiet", "--bare", str(bare))
    checkout.run("git", f"--git-dir={bare}", "config", "receive.advertisePushOptions", "true")
    secrets = {"FLEET_NEW_API_KEY": KEY, "FLEET_PUSH_TOKEN": "test-push-token"}
    done = runner.run("rotate", ROTATE="next", CI_PROJECT_URL=str(tmp_path / "remote"), **secrets)
    assert done.returncode == 0, done.stdout
    pushed = checkout.run("git", f"--git-dir={bare}", "show", "fleet-rotate-41:Pulumi.production.yaml").output
    assert "fleet:apiKeyNext:" in pushed
    assert not any(secret in done.stdout + pushed for secret in secrets.values())
    missing = runner.run("rotate", ROTATE="next", FLEET_NEW_API_KEY="")
    assert missing.returncode == 1
    assert "FLEET_NEW_API_KEY is not set" in missing.stdout


@pytest.mark.engine
def test_an_ssh_key_is_loaded_into_an_agent(checkout: Clone, runner: Runner, tmp_path: Path) -> None:
    """By standard input: the key is in no argument and in no file."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    private = (tmp_path / "key").read_text()
    (tmp_path / "key").unlink()
    jobs = load()
    setup = "\n".join(["set -eo pipefail", *jobs[".control"]["before_script"], "ssh-add -l", "ssh-agent -k"])
    done = subprocess.run(
        ["bash", "-c", setup],
        cwd=checkout.folder,
        env={**checkout.environment(), "FLEET_SSH_KEY": private},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "(ED25519)" in done.stdout


def test_jobs_run_for_no_fork_and_change_hosts_only_by_hand() -> None:
    """On the default branch, in an environment that can be protected, one at a time."""
    jobs = {name: job for name, job in load().items() if name not in GLOBAL and not name.startswith(".")}
    for name in ("preview", "comment"):
        (rule,) = jobs[name]["rules"]
        assert "$CI_MERGE_REQUEST_SOURCE_PROJECT_ID == $CI_MERGE_REQUEST_PROJECT_ID" in rule["if"]
    (rule,) = jobs["up"]["rules"]
    assert rule["when"] == "manual"
    assert "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH" in rule["if"]
    assert jobs["up"]["resource_group"] == "fleet-production"
    assert {job["environment"]["name"] for job in jobs.values()} == {
        "fleet-preview", "fleet-comment", "fleet-read", "fleet-production", "fleet-rotation",
    }  # fmt: skip
    assert all(
        not re.search(r"^\s*(set -x|env|printenv)\b", line) for job in jobs for line in commands(load(), job)
    )
