import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.hosts import fleet
from infra.hosts.inventory import as_yaml, inventory
from infra.hosts.model import Captured
from infra.playbook import requests, ssh
from tests.infra.stacks import HOST_KEY, KEY, PROJECT, load, shipped

API_CLIENTS = {
    "web-prod-01": "10.0.1.11",
    "web-prod-02": "10.0.1.12",
    "web-prod-03": "10.0.1.13",
    "api-prod-01": "10.0.1.21",
    "api-prod-02": "10.0.1.22",
}
BATCH_WORKERS = {"batch-worker-01": "10.0.2.11", "batch-worker-02": "10.0.2.12"}
EVERYWHERE = {
    "ansible_user": "deploy",
    "ai_environment": "production",
    "ai_log_level": "INFO",
    "ai_enable_metrics": True,
}
OF_API_CLIENTS = {
    "ansible_python_interpreter": "/usr/bin/python3",
    "ai_provider": "holysheep",
    "ai_base_url": "https://api.holysheep.ai/v1",
    "ai_model_default": "gpt-4.1",
    "ai_timeout": 30,
    "ai_max_retries": 3,
}
OF_BATCH_WORKERS = {"ai_model_default": "deepseek-v3.2", "ai_concurrency_limit": 10, "ai_batch_mode": True}
EXPECTED = {
    **{n: {"ansible_host": a, **EVERYWHERE, **OF_API_CLIENTS} for n, a in API_CLIENTS.items()},
    **{n: {"ansible_host": a, **EVERYWHERE, **OF_BATCH_WORKERS} for n, a in BATCH_WORKERS.items()},
}


def listed_by_ansible(source: Path, **environment: str) -> dict[str, Any]:
    """What Ansible itself makes of an inventory."""
    argv = [str(Path(sys.executable).parent / "ansible-inventory"), "-i", str(source), "--list"]
    asked = subprocess.run(
        argv, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=True
    )
    assert "WARNING" not in asked.stderr
    return dict(json.loads(asked.stdout))


def production() -> tuple[Any, Any]:
    settings = load(shipped("production"))
    return settings, fleet.build(settings)


def check_is_as_users_have_it(listed: dict[str, Any]) -> None:
    assert listed["_meta"]["hostvars"] == EXPECTED
    assert listed["ai_api_clients"]["hosts"] == list(API_CLIENTS)
    assert listed["ai_batch_workers"]["hosts"] == list(BATCH_WORKERS)
    assert listed["production"]["children"] == ["ai_api_clients", "ai_batch_workers"]


def test_the_file_gives_the_groups_hosts_and_variables_that_users_have(tmp_path: Path) -> None:
    """The shipped production stack is the users' hand-kept inventory, to the variable."""
    settings, declared = production()
    path = tmp_path / "hosts.yml"
    path.write_text(as_yaml(inventory(declared, settings.vars)))
    check_is_as_users_have_it(listed_by_ansible(path))


def test_the_dynamic_inventory_gives_the_same(tmp_path: Path) -> None:
    """The executable inventory answers from the stack's outputs what the file answers."""
    settings, declared = production()
    nodes = declared.targets
    outputs = {
        "inventory": inventory(declared, settings.vars),
        "ssh": {
            "config": ssh.config_text(nodes, settings.ssh, known_hosts="{known_hosts}"),
            "knownHosts": "",
        },
    }
    (tmp_path / "outputs.json").write_text(json.dumps(outputs))
    source = PROJECT / "ansible" / "inventory" / "fleet.py"
    check_is_as_users_have_it(
        listed_by_ansible(source, AI_CLIENT_FLEET_OUTPUTS=str(tmp_path / "outputs.json"))
    )


def test_the_dynamic_inventory_reaches_hosts_with_pinned_keys_through_the_jump_host(tmp_path: Path) -> None:
    """Where keys are pinned or a jump host is on the way, the inventory brings the ssh configuration with it."""
    settings = load(shipped("dev"), stack="dev")
    declared = fleet.build(settings)
    nodes = (*declared.jump_hosts, *declared.targets)
    captured = Captured(host_keys={node.name: (HOST_KEY,) for node in nodes})
    outputs = {
        "inventory": inventory(declared, settings.vars),
        "ssh": {
            "config": ssh.config_text(nodes, requests.outgoing(settings), known_hosts="{known_hosts}"),
            "knownHosts": ssh.known_hosts_text(nodes, captured),
        },
    }
    (tmp_path / "outputs.json").write_text(json.dumps(outputs))
    listed = listed_by_ansible(
        PROJECT / "ansible" / "inventory" / "fleet.py",
        AI_CLIENT_FLEET_OUTPUTS=str(tmp_path / "outputs.json"),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    arguments = listed["_meta"]["hostvars"]["api-dev-01"]["ansible_ssh_common_args"]
    resolved = subprocess.run(
        ["ssh", *arguments.split(), "-G", "10.88.0.11"],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    ).stdout.splitlines()
    assert "proxyjump jump-dev-01" in resolved
    assert "hostkeyalias api-dev-01" in resolved
    assert "stricthostkeychecking true" in resolved
    known = next(line.split()[1] for line in resolved if line.startswith("userknownhostsfile"))
    assert f"api-dev-01 {HOST_KEY}" in Path(known).read_text().splitlines()


def test_an_unreadable_source_is_answered_with_the_remedy(tmp_path: Path) -> None:
    """Without outputs there is no inventory, and the error says what makes them."""
    asked = subprocess.run(
        [sys.executable, str(PROJECT / "ansible" / "inventory" / "fleet.py"), "--list"],
        env={**os.environ, "AI_CLIENT_FLEET_OUTPUTS": str(tmp_path / "none.json")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert asked.returncode == 1
    assert "run 'pulumi up' first" in asked.stderr
    assert "Traceback" not in asked.stderr


def test_a_wave_holds_its_hosts_alone_with_their_claims() -> None:
    """A run reaches the hosts of its wave and no other; each carries the claim that its marker will name."""
    settings = load(shipped("production") | {"apiKey": KEY})
    declared = fleet.build(settings)
    order = requests.deploy(
        settings, declared, Captured(), group="ai_api_clients", nodes=declared.targets[:2]
    )
    assert order.hosts() == ("web-prod-01", "web-prod-02")
    held = order.inventory["all"]["children"]["production"]["children"]["ai_api_clients"]["hosts"][
        "web-prod-01"
    ]
    assert held["ai_claim"] == "fleet/production/web-prod-01"
    assert held["ai_claim_owner"] == "fleet/production"
    assert "web-prod-03" not in order.ssh_config


def test_a_wave_does_not_change_with_a_variable_of_another_group() -> None:
    """Else a change in one group would run the other group's hosts too."""

    def order(timeout_s: int) -> str:
        config = shipped("production") | {"apiKey": KEY}
        config["groups"]["ai_api_clients"]["vars"]["ai_timeout"] = timeout_s
        settings = load(config)
        declared = fleet.build(settings)
        workers = next(group for group in declared.groups if group.name == "ai_batch_workers")
        return requests.deploy(
            settings, declared, Captured(), group=workers.name, nodes=workers.nodes
        ).as_json()

    assert order(17) == order(18)


@pytest.mark.parametrize("text", ["inventory", "ssh_config", "known_hosts"])
def test_no_part_of_an_order_but_its_secrets_holds_the_key(text: str) -> None:
    """The key goes in the environment of the run; nothing that is written to disk has it."""
    settings = load(shipped("production") | {"apiKey": KEY})
    declared = fleet.build(settings)
    order = requests.deploy(
        settings, declared, Captured(), group="ai_api_clients", nodes=declared.targets[:2]
    )
    assert order.secrets == {"HOLYSHEEP_API_KEY": KEY}
    assert KEY not in str(getattr(order, text))
    assert KEY not in repr(order)
