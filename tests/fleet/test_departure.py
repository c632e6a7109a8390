"""Hosts that leave a stack: machines that stay where they are, and are given back as they were found.

The machines are the eight of the fleet's tests without their stack's `source: local`: to the stack here they are static
hosts with pinned keys behind a jump host, as production's are.
"""

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ansible.file_tree import TREE, different
from tests.fleet.clones import Clone, clone
from tests.fleet.conftest import API_CLIENTS, BATCH_WORKERS, HOSTS, dev_config
from tests.fleet.load import under_load
from tests.fleet.waiting import wait_until
from tests.infra.stacks import KEY
from tests.tools.hosts_control import Control, own_fleet

pytestmark = [pytest.mark.engine, pytest.mark.hosts]

STACK = "departtest"
LINK_OCTET = 61
JUMP = "jump-dev-01"


@dataclass(frozen=True)
class Departure:
    """A stack over machines that it did not make.

    Attributes:
        machines: the tool that made them.
        clone: the stack's checkout.
        before: everything on each host's disk before the stack's first contact.
    """

    machines: Control
    clone: Clone
    before: dict[str, set[str]]

    def trees(self, *hosts: str) -> dict[str, set[str]]:
        """Everything on hosts' disks now. The machines' own tool enters them, so that a host needs no stack for it."""
        return {host: set(self.inside(host, TREE).splitlines()) for host in hosts}

    def inside(self, host: str, command: str) -> str:
        """Runs a command as root in a host, without ssh."""
        leader = _leader(self.machines.pid(host))
        argv = ["nsenter", "--target", str(leader), "--all", "--", "/bin/sh", "-c", command]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout

    def without(self, *hosts: str) -> None:
        """Takes hosts out of the stack's file."""
        config = self.config()
        for group in config["groups"].values():
            for host in hosts:
                group.get("hosts", {}).pop(host, None)
        self.clone.configure(config)

    def config(self) -> dict[str, Any]:
        """The stack's configuration without its secrets."""
        content = yaml.safe_load((self.clone.folder / f"Pulumi.{STACK}.yaml").read_text())
        items = content["config"].items()
        return {k.removeprefix("fleet:"): v for k, v in items if not (isinstance(v, dict) and "secure" in v)}


def _leader(container: int) -> int:
    """The first process of a container."""
    return int(Path(f"/proc/{container}/task/{container}/children").read_text().split()[0])


def _boot(machines: Control) -> None:
    """The machines, and the provider simulator."""
    machines.ask("network", "up", order=machines.network_order)
    link = f"{machines.jump_address}/30"
    machines.ask(
        "host", "up", order={"name": JUMP, "address": "10.88.0.2/24", "suite": "bookworm", "link": link}
    )
    for name, address in _addresses().items():
        machines.ask("host", "up", order={"name": name, "address": f"{address}/24", "suite": "bookworm"})
    argv = [".venv/bin/ai-client", "simulate", "--host", "10.88.0.1", "--port", "8000"]
    ready = {"address": "10.88.0.1", "port": 8000}
    machines.ask("service", "up", order={"name": "simulator", "argv": argv, "ready": ready})


def _addresses() -> dict[str, str]:
    groups: Any = dev_config()["groups"]
    return {
        name: host["address"] for group in groups.values() for name, host in group.get("hosts", {}).items()
    }


def _static_config(machines: Control) -> dict[str, Any]:
    """The dev stack's configuration with every host as one that somebody else made."""
    known: Any = machines.ask("status")["hosts"]
    config: dict[str, Any] = dev_config()
    del config["local"]
    config["ssh"] = {"identityFile": str(machines.places.identity)}
    config["jumpHosts"] = {JUMP: {"address": machines.jump_address, "hostKeys": known[JUMP]["host_keys"]}}
    for group in config["groups"].values():
        group.pop("source", None)
        if hosts := group.get("hosts"):
            group["jump"] = [JUMP]
            for name, host in hosts.items():
                hosts[name] = {"address": host["address"], "hostKeys": known[name]["host_keys"]}
    config["maxRemovals"] = 1
    return config


@pytest.fixture(scope="module")
def departure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Departure]:
    """The stack, up; machines and stack are gone afterwards."""
    work = tmp_path_factory.mktemp("departure")
    try:
        with own_fleet(STACK, LINK_OCTET) as machines:
            _boot(machines)
            checkout = clone(work / "checkout", state=work / "state", stack=STACK)
            departure = Departure(machines, checkout, {})
            departure.before.update(departure.trees(*HOSTS))
            checkout.pulumi("stack", "init", STACK)
            checkout.configure(_static_config(machines))
            checkout.pulumi("config", "set", "--secret", "apiKey", "--stack", STACK, stdin=KEY)
            checkout.up()
            yield departure
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _given_back(departure: Departure, *hosts: str) -> None:
    """Nothing is on hosts that was not there before, and no service or user of ours."""
    before = {host: departure.before[host] for host in hosts}
    assert different(departure.trees(*hosts), before) == []
    left = "systemctl list-units --all --plain --no-legend 'ai-client*'; getent passwd ai-client || true"
    assert {departure.inside(host, left) for host in hosts} == {""}


def _main_pids(departure: Departure, *hosts: str) -> dict[str, str]:
    show = "systemctl show --property MainPID --value ai-client"
    return {host: departure.inside(host, show) for host in hosts}


def test_a_host_taken_out_gives_up_its_ledger_and_then_everything(departure: Departure) -> None:
    """The preview shows a deletion; `up` fetches ledger and audit log, then leaves the host as it was found."""
    host, *others = API_CLIENTS[-1], *API_CLIENTS[:-1], *BATCH_WORKERS
    with under_load(departure.clone, host, per_second=20) as load:
        wait_until(lambda: bool(departure.inside(host, "cat /var/log/ai-client/audit* || true")))
    pids = _main_pids(departure, *others)
    departure.without(host)
    previewed = departure.clone.preview().changed()
    assert previewed[f"claim-{host}"] == "delete"
    assert departure.clone.up().changed()[f"claim-{host}"] == "delete"
    _given_back(departure, host)
    assert _main_pids(departure, *others) == pids
    (kept,) = (departure.clone.folder / "decommissioned").glob(f"fleet_{STACK}@*_{host}")
    with sqlite3.connect(f"file:{kept / 'ledger.sqlite'}?mode=ro", uri=True) as ledger:
        (entries,) = ledger.execute("SELECT count(*) FROM entry").fetchone()
    assert entries >= load.answered > 0
    assert any("audit" in path.name for path in kept.iterdir())
    departure.clone.up()  # the limits that rise for those that stay
    assert departure.clone.up("--expect-no-changes").changed() == {}


def test_a_renamed_host_keeps_its_fresh_install(departure: Departure) -> None:
    """The old name's claim goes, and does not wipe what the new name has put there."""
    old, new = API_CLIENTS[3], "api-renamed-04"
    config = departure.config()
    hosts = config["groups"]["ai_api_clients"]["hosts"]
    hosts[new] = hosts.pop(old)
    departure.clone.configure(config)
    changed = departure.clone.up().changed()
    assert changed[f"claim-{old}"] == "delete"
    assert changed[f"claim-{new}"] == "create"
    assert departure.inside(old, "systemctl is-active ai-client").strip() == "active"
    assert new in departure.inside(old, "cat /etc/ai-client/claim.json")
    departure.clone.up()
    assert departure.clone.up("--expect-no-changes").changed() == {}


def test_a_host_that_is_gone_is_named_and_can_be_forgotten(departure: Departure) -> None:
    """`up` does not forget a host that it cannot clean up; it says how to, and what to do about its key."""
    host = API_CLIENTS[2]
    departure.inside(host, "systemctl stop ssh.socket ssh.service; pkill -9 -x sshd || true")
    departure.without(host)
    refused = departure.clone.up(expect=1)
    assert f"{host}: unreachable" in refused.errors()
    assert "docs/how-to/incidents.md" in refused.errors()
    urn = f"urn:pulumi:{STACK}::fleet::fleet:index:Deployment$command:local:Command::claim-{host}"
    departure.clone.pulumi("state", "delete", "--yes", "--stack", STACK, urn)
    departure.clone.up()
    departure.clone.up()
    assert departure.clone.up("--expect-no-changes").changed() == {}


def test_a_group_taken_out_is_cleaned_up_once_its_size_is_allowed(departure: Departure) -> None:
    """Three hosts at once are more than the stack allows: nothing is touched until it says that it is meant."""
    config = departure.config()
    del config["groups"]["ai_batch_workers"]
    config["groups"]["dev"]["children"] = ["ai_api_clients"]
    departure.clone.configure(config)
    refused = departure.clone.pulumi("preview", "--stack", STACK, expect=None)
    assert refused.status != 0
    assert "3 hosts would be removed" in refused.output
    assert "maxRemovals" in refused.output
    assert departure.clone.up(expect=None).status != 0
    assert {departure.inside(h, "systemctl is-active ai-client").strip() for h in BATCH_WORKERS} == {"active"}
    departure.clone.configure({**config, "maxRemovals": 3})
    departure.clone.up()
    _given_back(departure, *BATCH_WORKERS)


def test_a_claim_that_is_replaced_leaves_its_host_alone(departure: Departure) -> None:
    """`--replace` wipes no healthy host: the stack still declares it, and the run says so to the command."""
    host = API_CLIENTS[0]
    pids = _main_pids(departure, host)
    urn = f"urn:pulumi:{STACK}::fleet::fleet:index:Deployment$command:local:Command::claim-{host}"
    assert "replace" in departure.clone.up("--replace", urn).changed()[f"claim-{host}"]
    assert _main_pids(departure, host) == pids
    assert departure.clone.up("--expect-no-changes").changed() == {}


def test_a_preview_asks_each_host_once_and_builds_nothing(departure: Departure, tmp_path: Path) -> None:
    """On a machine that has no artefact, as a fresh runner of a CI has none."""
    host = API_CLIENTS[0]
    asked = "journalctl --identifier sudo --output cat --no-pager | grep -c COMMAND= || true"
    before = int(departure.inside(host, asked))
    looked = departure.clone.run(
        *("env", f"XDG_CACHE_HOME={tmp_path}", "PULUMI_ENABLE_STREAMING_JSON_PREVIEW=1"),
        *("pulumi", "preview", "--json", "--non-interactive"),
    )
    assert looked.changed() == {}
    assert "has not built its own (up does)" in looked.messages()
    assert int(departure.inside(host, asked)) == before + 1
    assert not (tmp_path / "ai-client-fleet" / "artefacts").exists()


def test_a_renamed_stack_keeps_its_hosts(departure: Departure) -> None:
    """`pulumi stack rename`: the state knows whose hosts they are, so that nothing is removed, made or changed."""
    renamed, checkout = f"{STACK}-renamed", departure.clone
    try:
        checkout.pulumi("stack", "rename", renamed, "--stack", STACK)
        assert checkout.up("--expect-no-changes", "--stack", renamed).changed() == {}
    finally:
        checkout.pulumi("stack", "rename", STACK, "--stack", renamed)


def test_another_state_takes_a_host_over_as_documented(departure: Departure, tmp_path: Path) -> None:
    """It is refused until it names the owner; then the host is its own, nothing restarts, and the other is refused."""
    host, first = API_CLIENTS[0], departure.clone
    pids = _main_pids(departure, host)
    config = departure.config()
    config["groups"].pop("ai_batch_workers", None)  # a test before this one may have taken it out
    config["groups"]["ai_api_clients"]["hosts"] = {host: config["groups"]["ai_api_clients"]["hosts"][host]}
    config["groups"]["dev"]["children"] = ["ai_api_clients"]
    second = clone(tmp_path / "checkout", state=tmp_path / "state", stack=STACK)
    second.pulumi("stack", "init", STACK)
    second.configure(config)
    second.pulumi("config", "set", "--secret", "apiKey", "--stack", STACK, stdin=KEY)
    owner = _owner(departure, host)
    refused = second.up(expect=1).errors()
    assert f"this host belongs to {owner}" in refused
    assert "fleet:takeOver" in refused
    second.pulumi("config", "set", "takeOver", owner, "--stack", STACK)
    second.up()
    assert _owner(departure, host) not in ("", owner)
    assert f"this host belongs to {_owner(departure, host)}" in first.preview().messages()
    # And back, before the state of the other is thrown away.
    first.pulumi("config", "set", "takeOver", _owner(departure, host), "--stack", STACK)
    first.up()
    assert _owner(departure, host) == owner
    assert second.pulumi("destroy", "--yes", "--skip-preview", "--json", expect=None).status != 0
    first.pulumi("config", "rm", "takeOver", "--stack", STACK)
    first.up()
    assert _main_pids(departure, host) == pids


def _owner(departure: Departure, host: str) -> str:
    return str(json.loads(departure.inside(host, "cat /etc/ai-client/claim.json"))["owner"])


def test_destroy_needs_a_consent_that_the_state_records(departure: Departure) -> None:
    """It runs no program that could say that the hosts leave: nothing is touched, and the error names the way."""
    hosts = [*API_CLIENTS[:2], API_CLIENTS[3]]
    pids = _main_pids(departure, *hosts)
    refused = departure.clone.pulumi("destroy", "--yes", "--skip-preview", "--json", expect=None)
    assert refused.status != 0
    assert "pulumi config set allowDestroy true" in refused.output
    assert _main_pids(departure, *hosts) == pids


def test_destroy_gives_back_what_is_left(departure: Departure) -> None:
    """Every host that the stack still has, as it was found; ledgers are fetched; the state is empty."""
    departure.clone.configure({**departure.config(), "allowDestroy": True})
    departure.clone.up()
    left = [*API_CLIENTS[:2], API_CLIENTS[3]]
    departure.clone.pulumi("destroy", "--yes", "--skip-preview", "--json")
    _given_back(departure, *left)
    kept = {path.name for path in (departure.clone.folder / "decommissioned").iterdir()}
    assert all(any(name.endswith(f"_{host}") for name in kept) for host in API_CLIENTS[:2])
    exported = json.loads(departure.clone.pulumi("stack", "export").output)
    assert exported["deployment"].get("resources", [])[1:] == []
