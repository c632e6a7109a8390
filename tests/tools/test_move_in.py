"""Existing inventories on their way into a stack: what comes along, what is named, and what is never touched."""

import io
import os
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.hosts import fleet
from infra.hosts.inventory import inventory
from infra.project_files import role_variables
from tests.infra.stacks import KEY, PROJECT
from tools.stacks import stack_file
from tools.stacks.move_in import main, text
from tools.stacks.moving.config import Move
from tools.stacks.moving.source import Group, Inventory, MovingError, Value, Vault

INI = """\
[ai_api_clients]
web-prod-01 ansible_host=10.0.1.11
web-prod-02 ansible_host=10.0.1.12
web-prod-03 ansible_host=10.0.1.13
api-prod-01 ansible_host=10.0.1.21
api-prod-02 ansible_host=10.0.1.22

[ai_batch_workers]
batch-worker-01 ansible_host=10.0.2.11
batch-worker-02 ansible_host=10.0.2.12

[production:children]
ai_api_clients
ai_batch_workers
"""
VARIABLES = """\

[all:vars]
ansible_user=deploy

[ai_api_clients:vars]
ansible_python_interpreter=/usr/bin/python3
ai_provider=holysheep
ai_base_url=https://api.holysheep.ai/v1
ai_model_default=gpt-4.1
ai_timeout=30
ai_max_retries=3

[ai_batch_workers:vars]
ai_model_default=deepseek-v3.2
ai_concurrency_limit=10
ai_batch_mode=true

[production:vars]
environment=production
ai_log_level=INFO
ai_enable_metrics=true
"""
GROUP_VARS = {
    "ai_api_clients.yml": {
        "ansible_python_interpreter": "/usr/bin/python3",
        "ai_provider": "holysheep",
        "ai_base_url": "https://api.holysheep.ai/v1",
        "ai_model_default": "gpt-4.1",
        "ai_timeout": 30,
        "ai_max_retries": 3,
    },
    "ai_batch_workers.yaml": {
        "ai_model_default": "deepseek-v3.2",
        "ai_concurrency_limit": 10,
        "ai_batch_mode": True,
    },
    "production/main.yml": {"environment": "production", "ai_log_level": "INFO", "ai_enable_metrics": True},
    "all": {"ansible_user": "deploy"},
}
VAULT = "$ANSIBLE_VAULT;1.1;AES256\n6162636465\n"


def lay_down(folder: Path, ini: str | bytes, files: dict[str, Any] | None = None) -> Path:
    """An inventory `moved.ini`, with files below its folder."""
    path = folder / "moved.ini"
    path.write_bytes(ini if isinstance(ini, bytes) else ini.encode())
    for name, content in (files or {}).items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        raw = content if isinstance(content, str | bytes) else yaml.safe_dump(content)
        target.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    return path


class Moved:
    """How a move ended: what it said, and the file that it wrote."""

    def __init__(self, path: Path, *words: str) -> None:
        self.out = path.parent / "Pulumi.moved.yaml"
        said, error = io.StringIO(), io.StringIO()
        # The tool keeps the user's configuration of Ansible out by its environment, which is this process's here.
        with mock.patch.dict(os.environ), redirect_stdout(said), redirect_stderr(error):
            self.status = main([str(path), "--out", str(self.out), *words])
        self.said, self.error = said.getvalue(), error.getvalue()
        self.file = self.out.read_text() if self.out.exists() else ""

    @property
    def config(self) -> dict[str, Any]:
        assert self.status == 0, self.error
        return dict(yaml.safe_load(self.file)["config"])

    @property
    def group(self) -> dict[str, Any]:
        return dict(self.config["fleet:groups"])

    def inventory(self) -> Any:
        settings = stack_file.load(self.file, stack="moved")
        return inventory(fleet.build(settings), settings.vars)


def shipped() -> Any:
    settings = stack_file.load((PROJECT / "Pulumi.production.yaml").read_text(), stack="production")
    return inventory(fleet.build(settings), settings.vars)


@pytest.mark.parametrize(
    ("ini", "files"),
    [
        (INI + VARIABLES, {}),
        (INI, {f"group_vars/{name}": content for name, content in GROUP_VARS.items()}),
        (INI.replace("ansible_host", "ansible_user=deploy ansible_ssh_host") + VARIABLES, {}),
    ],
    ids=["ini", "group_vars", "users on hosts"],
)
def test_the_production_inventory_becomes_the_shipped_stack(
    tmp_path: Path, ini: str, files: dict[str, Any]
) -> None:
    """Seven hosts in three groups, in whichever of Ansible's forms: Ansible sees the same inventory afterwards."""
    moved = Moved(lay_down(tmp_path, ini, files))
    assert moved.inventory() == shipped()
    assert moved.config["fleet:environment"] == "production"
    assert "Everything was carried over." in moved.said
    assert "Everything was carried over." in moved.file


def test_a_vault_is_named_and_not_read(tmp_path: Path) -> None:
    """A file and a value that Vault encrypts are listed; the rest comes along."""
    files = {f"group_vars/{name}": content for name, content in GROUP_VARS.items()}
    files["group_vars/production/vault.yml"] = VAULT
    files["group_vars/ai_batch_workers.yaml"] = (
        yaml.safe_dump(GROUP_VARS["ai_batch_workers.yaml"])
        + "ai_api_key: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\nai_proxy_url: !vault |\n  $ANSIBLE_VAULT;1.1\n"
    )
    moved = Moved(lay_down(tmp_path, INI, files))
    assert moved.inventory() == shipped()
    assert "group_vars/production/vault.yml: encrypted with Vault and not read" in moved.said
    assert "ai_api_key of ai_batch_workers: an upstream key is never copied" in moved.said
    assert "ai_proxy_url of ai_batch_workers: encrypted with Vault" in moved.said
    assert "6162" not in moved.said + moved.file


SECRETS = {
    "ai_api_key": KEY,
    "ansible_become_password": "correct horse",
    "ansible_ssh_pass": "correct horse",
    "ai_proxy_url": "http://me:correct-horse@proxy:3128",
    "ai_cost_tags": {"note": KEY},
    "my_note": KEY,
}


def test_no_secret_comes_along(tmp_path: Path) -> None:
    """Keys and passwords in clear text are named with what to do, and repeated nowhere."""
    files = {"group_vars/ai_api_clients.yml": SECRETS, "host_vars/batch-worker-01": {"ai_api_key": KEY}}
    moved = Moved(lay_down(tmp_path, INI, files))
    assert all(f"{name} of ai_api_clients: " in moved.said for name in SECRETS)
    assert "host_vars/batch-worker-01: ai_api_key of batch-worker-01" in moved.said
    assert "pulumi config set --secret apiKey" in moved.said
    for secret in (KEY, "correct horse", "correct-horse"):
        assert secret not in moved.said + moved.file + moved.error
    assert "vars" not in moved.group["ai_api_clients"]


def test_ranges_and_names_are_written_out(tmp_path: Path) -> None:
    """What Ansible expands, a stack lists; a host without address is reached by its name."""
    moved = Moved(lay_down(tmp_path, "[web]\nweb-prod-[01:03]\nweb-[a:b].example.com:2222\n"))
    assert moved.group["web"]["hosts"] == {
        "web-prod-01": {"address": "web-prod-01"},
        "web-prod-02": {"address": "web-prod-02"},
        "web-prod-03": {"address": "web-prod-03"},
        "web-a-example-com": {"address": "web-a.example.com", "port": 2222},
        "web-b-example-com": {"address": "web-b.example.com", "port": 2222},
    }
    assert "host web-a.example.com: is named web-a-example-com now" in moved.said


def test_texts_become_what_the_role_wants(tmp_path: Path) -> None:
    """INI knows texts and Python's literals: truth values and numbers are told by the role's types."""
    ini = (
        "[web]\na ai_batch_mode=yes ai_timeout=2.5 ai_rpm='600' ai_client_version=1 ai_caching_enabled=False"
    )
    moved = Moved(lay_down(tmp_path, ini + " ai_model_fallback_chain='[\"gpt-4.1\"]' ai_cache_size=1e1\n"))
    assert moved.group["web"]["hosts"]["a"]["vars"] == {
        "ai_batch_mode": True,
        "ai_timeout": 2.5,
        "ai_rpm": 600,
        "ai_client_version": "1",
        "ai_caching_enabled": False,
        "ai_model_fallback_chain": ["gpt-4.1"],
        "ai_cache_size": 10,
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ai_timout=30", "the role has no such variable; perhaps ai_timeout is meant"),
        ("nginx_port=80", "nginx_port of web: the role has no such variable"),
        ("ai_timeout=long", "is no float"),
        ("ai_batch_mode=perhaps", "is no bool"),
        ("ai_rpm=1.5", "is no int"),
        ("ai_cost_tags=x", "is no dict"),
        ("ai_base_url={{ base }}", "is an expression of Jinja"),
        ("ai_model_default=gpt-9", "unknown model"),
        ("ai_verify_ssl=false", "turns TLS verification off"),
        ("ai_gateway_host=0.0.0.0", "no tenant has a token"),
        ("ansible_ssh_common_args=-o StrictHostKeyChecking=no", "bypass the pinned host keys"),
        ("ansible_host=10.9.9.9", "is for one host alone"),
        ("ansible_user=root", "root never logs in over ssh"),
        ("ansible_port=70000", "less than or equal to 65535"),
        ("ansible_user={{ me }}", "not a login name"),
    ],
)
def test_what_does_not_fit_is_left_and_named(tmp_path: Path, line: str, said: str) -> None:
    """The rest comes along, and the file is one that the program accepts."""
    moved = Moved(lay_down(tmp_path, f"[web]\na\n[web:vars]\nai_max_retries=3\n{line}\n"))
    assert said in moved.said
    assert said in moved.file
    assert moved.group == {"web": {"vars": {"ai_max_retries": 3}, "hosts": {"a": {"address": "a"}}}}


def test_logins_and_ports_are_said_once(tmp_path: Path) -> None:
    """For the whole stack where all agree, for a group where its hosts do, for a host where not."""
    all_alike = "[a]\nx\ny\n[b]\nz\n[all:vars]\nansible_user=ops\nansible_ssh_private_key_file=~/.ssh/ops\n"
    moved = Moved(lay_down(tmp_path, all_alike))
    assert moved.config["fleet:user"] == "ops"
    assert moved.config["fleet:ssh"] == {"identityFile": "~/.ssh/ops"}
    assert moved.group["a"] == {"hosts": {"x": {"address": "x"}, "y": {"address": "y"}}}

    apart = (
        "[a]\nx\ny ansible_user=me\n[b]\nz ansible_port=2022\n[c:children]\nb\n[c:vars]\nansible_user=ops\n"
    )
    second = tmp_path / "second"
    second.mkdir()
    moved = Moved(lay_down(second, apart))
    assert "fleet:user" not in moved.config
    assert moved.group["a"]["hosts"] == {"x": {"address": "x"}, "y": {"address": "y", "user": "me"}}
    assert moved.group["b"] == {"hosts": {"z": {"address": "z"}}, "user": "ops", "port": 2022}
    assert moved.group["c"] == {"children": ["b"]}


def test_a_group_that_lists_the_hosts_of_others_becomes_a_group_of_these(tmp_path: Path) -> None:
    """A host is in one group of hosts: its other groups hold that group."""
    moved = Moved(lay_down(tmp_path, "[a]\nx\ny\n[b]\nz\n[live]\nx\ny\nz\n[live:vars]\nai_rpm=60\n"))
    assert moved.group["live"] == {"children": ["a", "b"], "vars": {"ai_rpm": 60}}
    assert "group live: lists the hosts of a, b; now a group of these" in moved.said


def test_a_host_in_two_groups_stays_in_the_first(tmp_path: Path) -> None:
    """Where groups overlap in part, the first keeps the host and the loss is named."""
    moved = Moved(lay_down(tmp_path, "[a]\nx\ny\n[b]\ny\nz\n[b:vars]\nai_rpm=60\n"))
    assert {name: list(group["hosts"]) for name, group in moved.group.items()} == {
        "a": ["x", "y"],
        "b": ["z"],
    }
    assert "host y: also in group b; it stays in a alone, and has no variables of b" in moved.said


def test_hosts_beside_groups_and_hosts_in_no_group_get_a_group(tmp_path: Path) -> None:
    """A group holds hosts or groups, and every host is in one."""
    moved = Moved(lay_down(tmp_path, "lone ai_rpm=5\n[a]\nx\n[b]\ny\n[b:children]\na\n"))
    assert moved.group["b"] == {"children": ["a", "b_hosts"]}
    assert list(moved.group["b_hosts"]["hosts"]) == ["y"]
    assert moved.group["hosts_without_group"]["hosts"] == {"lone": {"address": "lone", "vars": {"ai_rpm": 5}}}
    assert "lone: in no group" in moved.said


def test_names_that_a_stack_can_not_have_are_adapted(tmp_path: Path) -> None:
    """Capitals, hyphens in groups, dots and underscores in hosts; two that become one are an error."""
    moved = Moved(lay_down(tmp_path, "[Web-Servers]\nWEB_01.example.com ansible_host=10.0.0.1\n[1st]\nb\n"))
    assert list(moved.group) == ["web_servers", "group_1st"]
    assert list(moved.group["web_servers"]["hosts"]) == ["web-01-example-com"]
    second = tmp_path / "second"
    second.mkdir()
    clash = Moved(lay_down(second, "[a]\nweb_1\nweb-1\n"))
    assert clash.status == 1
    assert "hosts 'web_1' and 'web-1' would both be 'web-1'; rename one of them" in clash.error


def test_two_hosts_at_one_address_are_told_apart_or_named(tmp_path: Path) -> None:
    """The second one is left out, and says whose address it has."""
    moved = Moved(lay_down(tmp_path, "[a]\nx ansible_host=10.0.0.1\ny ansible_host=10.0.0.1\nz\n"))
    assert list(moved.group["a"]["hosts"]) == ["x", "z"]
    assert "hosts.y.address: 10.0.0.1:22 is declared twice" in moved.said


@pytest.mark.parametrize(
    ("ini", "said"),
    [
        (b"[web]\nw\xe9b\n", "is not UTF-8; convert it with iconv"),
        ("[web\n", "Failed to parse inventory"),
        ("[web]\na b c\n", "Expected key=value host variable assignment"),
        ("[web:vars]\nx=1\n", "undefined group"),
        ("[a:children]\nb\n[b:children]\na\n", "a"),
        ("[web]\nweb-[0:99999999]\n", "more than 10000 hosts"),
        ("", "has no host"),
        ("[web]\n", "has no host"),
    ],
)
def test_an_inventory_that_can_not_be_read_is_an_error(tmp_path: Path, ini: str | bytes, said: str) -> None:
    """One line with the file and the remedy; nothing is written."""
    moved = Moved(lay_down(tmp_path, ini))
    assert moved.status == 1
    assert moved.error.startswith("move-in: ")
    assert said in moved.error
    assert moved.file == ""


def test_a_parse_error_does_not_repeat_what_it_stumbled_over(tmp_path: Path) -> None:
    """A password with a blank in it, unquoted, is a common cause."""
    moved = Moved(lay_down(tmp_path, f"[web]\na ansible_password=correct {KEY} battery\n"))
    assert moved.status == 1
    assert KEY not in moved.error


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    """So is a folder of variables that is not there."""
    assert "No such file or directory" in Moved(tmp_path / "none.ini").error
    (tmp_path / "folder").mkdir()
    assert "is a folder" in Moved(tmp_path / "folder").error
    missing = Moved(lay_down(tmp_path, INI), "--group-vars", str(tmp_path / "nowhere"))
    assert missing.status == 1
    assert "nowhere is not a folder" in missing.error


def test_odd_files_of_variables_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    """Not UTF-8, not YAML, no mapping, for a group that is not there, empty, hidden."""
    files = {
        "group_vars/ai_api_clients.yml": b"ai_provider: caf\xe9\n",
        "group_vars/ai_batch_workers.yml": "a: [\n",
        "group_vars/production/list.yml": "- a\n",
        "group_vars/production/empty.yml": "",
        "group_vars/production/good.yml": "ai_rpm: 60\n",
        "group_vars/staging.yml": "ai_rpm: 1\n",
        "group_vars/production/.hidden.yml": "ai_rpm: 1\n",
    }
    moved = Moved(lay_down(tmp_path, INI, files))
    assert moved.group["production"]["vars"] == {"ai_rpm": 60}
    for said in (
        "group_vars/ai_api_clients.yml: not UTF-8",
        "group_vars/ai_batch_workers.yml: not YAML (line 2)",
        "group_vars/production/list.yml: no mapping of variables",
        "group_vars/staging.yml: for no group of the inventory",
        "group_vars/production/.hidden.yml: for no group of the inventory, or not a file that Ansible reads",
    ):
        assert said in moved.said


def test_a_script_is_not_run(tmp_path: Path) -> None:
    """An executable inventory is read as text, and an ansible.cfg beside it has no say."""
    ran = tmp_path / "ran"
    path = lay_down(
        tmp_path,
        f"#!/bin/sh\ntouch {ran}\n",
        {
            "ansible.cfg": "[defaults]\ninventory_plugins = plugins\n",
            "plugins/ini.py": f"open({str(ran)!r}, 'w')\n",
        },
    )
    path.chmod(0o755)
    done = subprocess.run(
        [str(PROJECT / "tools/move-in"), str(path), "--out", str(tmp_path / "out.yaml")],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("move-in: ")
    assert not ran.exists()


def test_names_from_a_file_can_not_break_out_of_the_comments(tmp_path: Path) -> None:
    """A variable's name may hold anything that YAML can quote."""
    files = {"group_vars/ai_api_clients.yml": '"x\\nfleet:probe: false\\n#": 1\n"\\x1b[31mred": 2\n'}
    moved = Moved(lay_down(tmp_path, INI, files))
    assert set(moved.config) == {"fleet:environment", "fleet:groups"}
    assert "\x1b" not in moved.file + moved.said
    assert all(line.startswith("#") for line in moved.file.splitlines() if "fleet:probe" in line)


def test_a_stack_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    """Moving in twice keeps what was edited in between."""
    path = lay_down(tmp_path, INI)
    (tmp_path / "Pulumi.moved.yaml").write_text("mine")
    moved = Moved(path)
    assert moved.status == 1
    assert "exists already" in moved.error
    assert moved.file == "mine"


def test_the_stack_is_named_after_the_inventory_or_as_asked(tmp_path: Path) -> None:
    """The name has to be one that a stack can have, and stands for the environment where none is named."""
    path = lay_down(tmp_path, INI)
    assert Moved(path).config["fleet:environment"] == "moved"
    (tmp_path / "Pulumi.moved.yaml").unlink()
    assert Moved(path, "--stack", "live").config["fleet:environment"] == "live"
    (tmp_path / "Pulumi.moved.yaml").unlink()
    assert "is not a valid name for a stack" in Moved(path, "--stack", "Live!").error


NAMES = st.text("ab1-_.A", min_size=1, max_size=4)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.lists(st.text(max_size=3), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.builds(Vault),
)
VARIABLE_NAMES = st.one_of(
    st.sampled_from([*role_variables(), "environment", "ansible_user", "ansible_port", "ansible_host"]),
    st.text("ai_x\n#:", min_size=1, max_size=6),
)
VARIABLES_OF_A_SCOPE = st.dictionaries(VARIABLE_NAMES, st.builds(Value, VALUES, st.just("x.ini")), max_size=4)


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    """Inventories as Ansible's parser may give them, with any variables."""
    hosts = draw(st.lists(NAMES, unique=True, min_size=1, max_size=5))
    names = draw(st.lists(NAMES, unique=True, max_size=4))
    groups = {"all": Group(children=["ungrouped", *names]), "ungrouped": Group()}
    for index, name in enumerate(names):
        groups[name] = Group(
            hosts=draw(st.lists(st.sampled_from(hosts), unique=True, max_size=5)),
            # Groups further down alone, as the parser refuses circles.
            children=draw(st.lists(st.sampled_from(names[index + 1 :]), unique=True))
            if names[index + 1 :]
            else [],
        )
    grouped = {host for name in names for host in groups[name].hosts}
    groups["ungrouped"].hosts = [host for host in hosts if host not in grouped]
    for group in groups.values():
        group.variables = draw(VARIABLES_OF_A_SCOPE)
    return Inventory(groups=groups, hosts={host: draw(VARIABLES_OF_A_SCOPE) for host in hosts})


@given(inventories())
@hypothesis_settings(max_examples=150, deadline=None)
def test_whatever_the_inventory_the_result_is_accepted_or_refused_by_name(found: Inventory) -> None:
    """Every file that is written loads; where none can be, the error says why. No host is lost without a word."""
    refused = ""
    try:
        move = Move(found, stack="moved", specs=role_variables())
        config = move.config()
    except MovingError as error:
        refused = str(error)
    if refused:
        assert "would both be" in refused or "would refuse" in refused
        return
    settings = stack_file.load(text(config, move.notes(), origin="x.ini", stack="moved"), stack="moved")
    kept = sum(len(group.hosts) for group in settings.groups.values())
    lost = sum("address" in note or "has the name" in note for note in move.notes())
    assert kept + lost >= len(found.hosts)
