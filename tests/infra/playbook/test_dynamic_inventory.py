"""The dynamic inventory asks Pulumi, and may use an answer again."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

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

    def everything(self, **changes: str) -> dict[str, Any]:
        """The whole inventory, as `--list` answers it."""
        return dict(json.loads(self.run(cache_s=0, **changes).stdout))

    def listed(self, *, cache_s: float, **changes: str) -> tuple[list[str], str]:
        """The hosts that the inventory lists, and what it says beside."""
        ran = self.run(cache_s=cache_s, **changes)
        return json.loads(ran.stdout)["all"]["hosts"], ran.stderr

    def run(
        self, *, cache_s: float, check: bool = True, **changes: str
    ) -> "subprocess.CompletedProcess[str]":
        environment = {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "COUNT": str(self.folder / "count"),
            "ANSWER": str(self.folder / "answer.json"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "PULUMI_BACKEND_URL": f"file://{self.folder}/backend",
            "AI_CLIENT_FLEET_STACK": "production",
            "AI_CLIENT_FLEET_CACHE_S": str(cache_s),
        } | changes
        return subprocess.run(
            [PROJECT / "ansible/inventory/fleet.py", "--list"],
            env={name: value for name, value in environment.items() if value},
            capture_output=True,
            text=True,
            check=check,
        )


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


def by_hand(words: str, *, outputs: Path, home: Path) -> "subprocess.CompletedProcess[str]":
    """A command of Ansible's as a user types it, on the inventory of a stack with these outputs."""
    program, *options = words.split()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        "ANSIBLE_CONFIG": str(PROJECT / "ansible/ansible.cfg"),
        "ANSIBLE_HOME": str(home),
        "AI_CLIENT_FLEET_OUTPUTS": str(outputs),
        "AI_CLIENT_FLEET_WORDS": str(outputs.with_name("words.json")) if outputs.exists() else "",
    }
    argv = [PROJECT / ".venv/bin" / program, "-i", "ansible/inventory/fleet.py", *options]
    return subprocess.run(
        argv, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    "words",
    [
        "ansible-playbook ansible/ai-client-verify.yml",
        "ansible-playbook ansible/ai-client-deploy.yml --check",
        "ansible-inventory --list",
        "ansible all -m ping",
    ],
)
def test_a_stack_that_is_misspelt_fails_every_command(words: str, tmp_path: Path) -> None:
    """A verify on no hosts would pass, and say that all is well."""
    ran = by_hand(words, outputs=Path("/nonexistent/outputs.json"), home=tmp_path)
    assert ran.returncode != 0
    assert "the stack's outputs cannot be read" in ran.stderr


@pytest.mark.parametrize(
    ("stacks", "remedy"),
    [
        ('[{"name": "dev"}, {"name": "production"}]', "set AI_CLIENT_FLEET_STACK to one of: dev, production"),
        ("[]", "the backend has none: check PULUMI_BACKEND_URL, or run 'pulumi up' first"),
        ("", "the backend has none"),
    ],
)
def test_a_stack_that_does_not_exist_is_answered_by_those_that_do(
    stack: Stack, stacks: str, remedy: str
) -> None:
    """Running `up` would make the misspelt one."""
    says = f"""#!/bin/sh
case "$2" in output) echo "error: no stack named 'prodcution' found" >&2; exit 255;; esac
echo '{stacks}'
"""
    (stack.folder / "bin" / "pulumi").write_text(says)
    ran = stack.run(cache_s=0, check=False, AI_CLIENT_FLEET_STACK="prodcution")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith(f"inventory: there is no stack 'prodcution'; {remedy}")


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Outputs of a stack of one host; nobody said anything of it but that it is well."""
    hosts = {"web-1": {"ansible_host": "127.0.0.1", "ansible_connection": "local"}}
    content = {"inventory": {"all": {"hosts": hosts}}, "ssh": {"config": "", "knownHosts": ""}}
    usual = {"is_well": True, "files": "sealed", "release": "", "version": "", "age_s": 3}
    (tmp_path / "words.json").write_text(json.dumps({"hosts": [{"host": "web-1", **usual}]}))
    path = tmp_path / "outputs.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    "words",
    [
        "ansible-playbook ansible/ai-client-verify.yml --list-hosts --limit web-1,web-l",
        "ansible-playbook ansible/ai-client-verify.yml --list-hosts --limit all:!web-l",
        "ansible web-l -m ping",
    ],
)
def test_a_host_that_is_misspelt_is_an_error(words: str, outputs: Path, tmp_path: Path) -> None:
    """Ansible by itself leaves it out, or in where it is to be left out, and ends well.

    https://github.com/ansible/ansible/issues/52152
    """
    ran = by_hand(words, outputs=outputs, home=tmp_path)
    assert ran.returncode != 0
    assert "web-l" in ran.stderr


def test_a_group_by_words_that_no_host_is_in_is_no_error(outputs: Path, tmp_path: Path) -> None:
    """No host is silent: that is well."""
    ran = by_hand("ansible said_silent -m ping", outputs=outputs, home=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_hosts_are_grouped_by_what_they_said_of_themselves(stack: Stack, tmp_path: Path) -> None:
    """Of the stack's hosts alone: a word about another host makes no host."""
    usual = {"is_well": True, "files": "sealed", "release": "0123456789abcdef", "version": "1.2", "age_s": 3}
    words = [
        {"host": "one", **usual},
        {"host": "two", **usual, "is_well": False, "files": "changed", "release": ""},
        {"host": "three", **usual, "age_s": 61},
        {"host": "elsewhere", **usual},
    ]
    (tmp_path / "words.json").write_text(json.dumps({"hosts": words}))
    hosts = {name: {"ansible_host": "10.0.0.1"} for name in ("one", "two", "three", "four")}
    outputs = {"inventory": {"all": {"hosts": hosts}}, "ssh": {"config": "", "knownHosts": ""}}
    (stack.folder / "answer.json").write_text(json.dumps(outputs))
    listed = stack.everything(AI_CLIENT_FLEET_WORDS=str(tmp_path / "words.json"))
    assert {name: group["hosts"] for name, group in listed.items() if name.startswith("said_")} == {
        "said_well": ["one"],
        "said_failing": ["two"],
        "said_changed": ["two"],
        "said_silent": ["three", "four"],
        "said_release_0123456789ab": ["one"],
        "said_version_1_2": ["one", "two"],
    }
