"""An ssh key that can only look, as docs/how-to/pull-requests.md sets it up, on real hosts."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.ansible.real_fleet import HOSTS, Fleet
from tests.tools.hosts_control import ROOT

pytestmark = [pytest.mark.hosts, pytest.mark.slow]

KEY = "hs_test_probe_identity_key"
CONFIG = "/etc/ai-client/ai-client.conf"
PROBE = "/usr/local/lib/ai-client-probe/probe"
LOGINS = "/home/deploy/.ssh/authorized_keys"
INVENTORY = "ansible/inventory/fleet.py"
FORWARDING = 'port-forwarding,permitopen="10.88.0.12:22"'


def commands() -> list[str]:
    """What the page says to type on the control machine."""
    page = (ROOT / "docs" / "how-to" / "pull-requests.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    (block,) = [block for block in blocks if "tools/probe/build" in block]
    return [line for line in block.splitlines() if not line.startswith("mkdir")]


@pytest.fixture(scope="module")
def deployed(fleet: Fleet) -> Iterator[Fleet]:
    """Hosts as the deploy identity has left them, with the probe's program and key on them."""
    assert fleet.play("deploy", key=KEY).status == 0
    for host in HOSTS:
        fleet.on(host, f"cp -p {LOGINS} {LOGINS}.before")
    for command in commands():
        typed = command.replace(" build/", f" {fleet.folder}/").replace("=build/", f"={fleet.folder}/")
        typed = typed.replace('"build/', f'"{fleet.folder}/').replace(
            INVENTORY, str(fleet.folder / "inventory.yml")
        )
        subprocess.run(["bash", "-c", typed], cwd=ROOT, env=fleet.environment(KEY), check=True, timeout=120)
    # The first host is the jump host too.
    fleet.on("h1", f"sed -i 's/^restrict,/restrict,{FORWARDING},/' {LOGINS}")
    yield fleet
    for host in HOSTS:
        fleet.on(host, f"mv {LOGINS}.before {LOGINS}; rm -r {Path(PROBE).parent}")
    assert fleet.play("decommission", key=KEY).status == 0


@pytest.fixture(scope="module")
def probe(deployed: Fleet) -> Iterator[Fleet]:
    """The same hosts, for whoever has the probe's key."""
    with TemporaryDirectory(prefix="acp-") as folder:
        config = (deployed.folder / "ssh_config").read_text()
        identity = str(deployed.control.places.identity)
        assert identity in config
        (Path(folder) / "ssh_config").write_text(
            config.replace(identity, str(deployed.folder / "fleet-probe"))
        )
        looking = dataclasses.replace(deployed, folder=Path(folder))
        yield looking
        looking.close_connections()


def test_hosts_that_are_as_declared_are_seen_to_be_so(probe: Fleet) -> None:
    """Through the jump host, with sudo, as a preview looks at them."""
    looked = probe.play("deploy", "--check", "--diff", key=KEY)
    assert (looked.status, looked.changed) == (0, {"h1": False, "h2": False}), looked.output


def test_drift_is_named_and_left_as_it_is(deployed: Fleet, probe: Fleet) -> None:
    """The difference comes from the bytes on the host; nothing is mended with this key."""
    deployed.on("h2", f"sed -i 's/^max_retries = .*/max_retries = 77/' {CONFIG}")
    before = {host: deployed.on(host, f"stat -c '%Y %Z %i' {CONFIG} /etc/ai-client/*") for host in HOSTS}
    looked = probe.play("deploy", "--check", "--diff", key=KEY)
    assert looked.changed == {"h1": False, "h2": True}, looked.output
    assert "max_retries = 77" in str(looked.results["h2"]["diffs"])
    assert KEY not in looked.output
    after = {host: deployed.on(host, f"stat -c '%Y %Z %i' {CONFIG} /etc/ai-client/*") for host in HOSTS}
    assert after == before
    assert deployed.play("deploy", key=KEY).changed == {"h1": False, "h2": True}


@pytest.mark.parametrize("playbook", ["deploy", "decommission"])
def test_a_run_that_would_change_hosts_is_refused_by_them(
    deployed: Fleet, probe: Fleet, playbook: str
) -> None:
    """And says why; the service runs on."""
    pids = {host: deployed.on(host, "systemctl show -P MainPID ai-client") for host in HOSTS}
    done = probe.play(playbook, key=f"{KEY}_other")
    assert done.status != 0
    assert done.output.count("this key can only look") >= len(HOSTS)
    assert {host: deployed.on(host, "systemctl show -P MainPID ai-client") for host in HOSTS} == pids
    assert deployed.play("deploy", "--check", key=KEY).changed == {"h1": False, "h2": False}


@pytest.mark.parametrize("command", ["id", "sudo cat /etc/shadow", "", f"{PROBE} /root"])
@pytest.mark.parametrize("host", HOSTS)
def test_nothing_else_can_be_started(probe: Fleet, host: str, command: str) -> None:
    """No command, no shell."""
    done = probe.ssh(host, command)
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"this key can only look" in done.stderr


def test_no_file_can_be_copied(probe: Fleet) -> None:
    """Neither way: sftp is a command like any other."""
    config = str(probe.folder / "ssh_config")
    done = subprocess.run(
        ["scp", "-F", config, "h2:/etc/hostname", str(probe.folder / "got")],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert not (probe.folder / "got").exists()


@pytest.mark.parametrize(
    ("host", "to"), [("h1", "10.88.0.1:8000"), ("h1", "127.0.0.1:22"), ("h2", "127.0.0.1:22")]
)
def test_connections_are_forwarded_to_the_hosts_alone(probe: Fleet, host: str, to: str) -> None:
    """The jump host leads to the hosts' ssh, and nowhere else; a host leads nowhere."""
    done = subprocess.run(
        ["ssh", "-F", str(probe.folder / "ssh_config"), "-W", to, host],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert b"prohibited" in done.stderr
