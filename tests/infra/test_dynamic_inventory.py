"""The dynamic inventory asks Pulumi, and may use an answer again."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.infra.stacks import PROJECT

PULUMI = """#!/bin/sh
echo asked >> "$COUNT"
cat "$ANSWER"
"""


class Stack:
    """A stack whose outputs a program in Pulumi's place tells, and counts how often it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = folder / "bin" / "pulumi"
        program.parent.mkdir()
        program.write_text(PULUMI)
        program.chmod(0o755)
        self.state = folder / "backend/.pulumi/stacks/fleet/production.json"
        self.state.parent.mkdir(parents=True)
        self.become("one")

    def become(self, host: str) -> None:
        """The stack's state and outputs after an `up`."""
        inventory = {"all": {"hosts": {host: {"ansible_host": "10.0.0.1"}}}}
        outputs = {"inventory": inventory, "ssh": {"config": "", "knownHosts": ""}}
        (self.folder / "answer.json").write_text(json.dumps(outputs))
        self.state.write_text(f"state with {host}")

    def asked(self) -> int:
        count = self.folder / "count"
        return len(count.read_text().splitlines()) if count.exists() else 0

    def listed(self, *, cache_s: float, **changes: str) -> tuple[list[str], str]:
        """The hosts that the inventory lists, and what it says beside."""
        environment = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "COUNT": str(self.folder / "count"),
            "ANSWER": str(self.folder / "answer.json"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "PULUMI_BACKEND_URL": f"file://{self.folder}/backend",
            "AI_CLIENT_FLEET_STACK": "production",
            "AI_CLIENT_FLEET_CACHE_S": str(cache_s),
        } | changes
        ran = subprocess.run(
            [PROJECT / "ansible/inventory/fleet.py", "--list"],
            env={name: value for name, value in environment.items() if value},
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(ran.stdout)["all"]["hosts"], ran.stderr


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return Stack(tmp_path)


def test_pulumi_is_asked_each_time_unless_a_cache_is_wanted(stack: Stack) -> None:
    """A cache is a choice: nobody gets an old answer without having asked for it."""
    assert [stack.listed(cache_s=0) for _ in range(2)] == [(["one"], "")] * 2
    assert stack.asked() == 2


def test_an_answer_is_used_again_and_each_time_says_so(stack: Stack) -> None:
    """Ansible shows what an inventory says on standard error."""
    assert stack.listed(cache_s=300) == (["one"], "")
    hosts, said = stack.listed(cache_s=300)
    assert hosts == ["one"]
    assert said.startswith("inventory: as Pulumi answered ")
    assert stack.asked() == 1


def test_a_changed_state_ends_an_answer_at_once(stack: Stack) -> None:
    """After an `up` of whoever shares the folder, the old fleet is not served for another second."""
    stack.listed(cache_s=300)
    stack.become("two")
    assert stack.listed(cache_s=300) == (["two"], "")


def test_an_answer_grows_old(stack: Stack) -> None:
    """Where the state cannot be looked at, age alone decides."""
    elsewhere = {"PULUMI_BACKEND_URL": "s3://bucket"}
    stack.listed(cache_s=300, **elsewhere)
    stack.become("two")
    assert stack.listed(cache_s=300, **elsewhere)[0] == ["one"]
    assert stack.listed(cache_s=1e-9, **elsewhere) == (["two"], "")


@pytest.mark.parametrize("unnamed", ["AI_CLIENT_FLEET_STACK", "PULUMI_BACKEND_URL"])
def test_an_answer_of_an_unnamed_stack_is_not_kept(stack: Stack, unnamed: str) -> None:
    """`pulumi stack select` and `pulumi login` would make it another's."""
    for _ in range(2):
        assert stack.listed(cache_s=300, **{unnamed: ""}) == (["one"], "")
    assert stack.asked() == 2


def test_another_stack_has_its_own_answer(stack: Stack) -> None:
    """Never one stack's hosts for another's."""
    stack.listed(cache_s=300)
    stack.listed(cache_s=300, AI_CLIENT_FLEET_STACK="staging")
    assert stack.asked() == 2
