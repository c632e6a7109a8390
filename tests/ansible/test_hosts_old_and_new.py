"""A whole life on Debian 11 (Python 3.9, systemd 247) and on Debian testing (Python 3.14, sudo-rs, the newest systemd).

The one is too old for the service and gets the interpreter of the artefact; the other has a tree for its own.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.ansible.file_tree import TREE, different
from tests.ansible.real_fleet import Fleet, repacked
from tests.ansible.test_hosts_life import ASKER, ask_gateway
from tests.docs.pages import walk

pytestmark = [pytest.mark.hosts, pytest.mark.slow]

KEY, KEY_2 = "hs_test_real_hosts_key_1", "hs_test_real_hosts_key_2"
OWN = "exec /opt/ai-client/current/python/bin/python3 "
SERVICE_PID = "systemctl show -P MainPID ai-client"


def tree(fleet: Fleet) -> dict[str, set[str]]:
    """What is on each host's disk."""
    return {host: set(fleet.on(host, TREE).splitlines()) for host in fleet.hosts}


def test_the_hosts_are_as_old_and_as_new_as_they_should_be(old_and_new: Fleet) -> None:
    """What a later image has instead is found here, not by a user."""
    old, new = (old_and_new.on(host, "python3 -V; systemctl --version | head -1") for host in ("h2", "h1"))
    assert old.splitlines()[0].startswith("Python 3.9.")
    assert old.splitlines()[1].startswith("systemd 247")
    assert new.splitlines()[0] >= "Python 3.14"
    assert int(new.splitlines()[1].split()[1]) >= 258
    assert old_and_new.on("h1", "sudo --version").startswith("sudo-rs")


def test_a_look_shows_the_interpreter_of_each_host_and_a_deploy_starts_it(old_and_new: Fleet) -> None:
    """The preview names it before anything is there; the sandbox is strong and nothing of it is unknown to systemd."""
    fleet = old_and_new
    before = tree(fleet)
    looked = fleet.play("deploy", "--check", "--diff", key=KEY)
    assert (looked.status, looked.changed) == (0, {"h1": True, "h2": True}), looked.output
    shown = {host: "".join(d["diff"] for d in looked.results[host]["diffs"]) for host in fleet.hosts}
    assert (OWN in shown["h2"], "exec /usr/bin/python3 " in shown["h1"]) == (True, True)
    assert different(tree(fleet), before) == []

    deployed = fleet.play("deploy", key=KEY)
    assert (deployed.status, deployed.changed) == (0, {"h1": True, "h2": True}), deployed.output
    for host in fleet.hosts:
        assert ask_gateway(fleet, host)["object"] == "chat.completion"
        scored = fleet.on(host, "systemd-analyze security ai-client.service --no-pager | tail -1")
        assert float(scored.split(":")[1].split()[0]) <= 2.0
        assert "Unknown" not in fleet.on(host, "journalctl --no-pager -o cat _PID=1 | grep ai-client || true")
    again = fleet.play("deploy", key=KEY)
    assert (again.status, again.changed) == (0, {"h1": False, "h2": False}), again.output


def test_drift_is_mended_and_a_key_rotated_without_a_restart(old_and_new: Fleet) -> None:
    """An edited file, a changed module of the interpreter, a stopped unit; then the same process has the new key."""
    fleet = old_and_new
    fleet.play("deploy", key=KEY)
    fleet.on(
        "h2",
        "sed -i s/30/31/ /etc/ai-client/ai-client.conf; echo >> /opt/ai-client/current/python/lib/python3.13/os.py",
    )
    fleet.on("h1", "systemctl stop ai-client.socket ai-client-tcp.socket ai-client")
    looked = fleet.play("deploy", "--check", key=KEY)
    named = set(looked.results["h2"]["changed_paths"])
    assert "/etc/ai-client/ai-client.conf" in named
    assert any(path.startswith("/opt/ai-client/releases/") for path in named)
    assert "unit ai-client.service" in looked.results["h1"]["changed_paths"]
    mended = fleet.play("deploy", key=KEY)
    assert mended.status == 0, mended.output
    pids = {host: fleet.on(host, SERVICE_PID) for host in fleet.hosts}
    rotated = fleet.play("deploy", "--tags", "secrets,verify", key=KEY_2)
    assert rotated.status == 0, rotated.output
    for host in fleet.hosts:
        assert rotated.results[host]["changed_paths"] == ["/etc/ai-client/key"]
        assert fleet.on(host, SERVICE_PID) == pids[host]


def test_an_upgrade_under_load_refuses_no_request(old_and_new: Fleet, tmp_path: Path) -> None:
    """The old release, with its own interpreter, hands over to the new one with another."""
    fleet, fast = old_and_new, {"ai_rpm": 100_000}
    fleet.play("deploy", key=KEY, variables=fast)
    for host in fleet.hosts:
        fleet.on(host, f'rm -f /tmp/answers /tmp/stop; nohup python3 -c "{ASKER}" >/dev/null 2>&1 &')
    newer = repacked(fleet.artefact, tmp_path / "newer", version="1.0.0", appended={"main.py": "# newer\n"})
    upgraded = fleet.play("deploy", key=KEY, variables={**fast, "ai_artefacts": str(newer)})
    assert upgraded.status == 0, upgraded.output
    for host in fleet.hosts:
        assert upgraded.results[host]["actions"] == ["hand ai-client.service over to the release"]
        told = "touch /tmp/stop; while [ ! -s /tmp/answers ]; do sleep 0.1; done; cat /tmp/answers"
        good, bad = map(int, fleet.on(host, told).split())
        assert (good > 10, bad) == (True, 0)


STORES = "{{ '/etc/credstore' if inventory_hostname == 'h2' else '/etc/credstore.encrypted' }}"


STORE = "/etc/credstore"
SEEN = "cat /proc/$(systemctl show -P MainPID ai-client)/root/run/credentials/ai-client.service/ai-client.key"
PAGE_KEYS = f"UPSTREAM_KEY={KEY}; NEXT_UPSTREAM_KEY={KEY_2}; "


def lay(fleet: Fleet, name: str, key: str) -> None:
    """A credential of the old host, before systemd could encrypt one: a file of root's."""
    fleet.on("h2", f"umask 077; mkdir -p {STORE}; printf %s {key} >{STORE}/{name}")


def test_a_host_signs_with_its_own_credential_and_rotates_it(old_and_new: Fleet) -> None:
    """No run has the key; the next one is tried, laid beside the old one, and takes its place.

    On the new host by the commands of the page, encrypted; on the old one in clear.
    """
    fleet, chosen = old_and_new, {"ai_key_from": "credential", "ai_credential_dir": STORES}
    refused = fleet.play("deploy", "--check", key="", variables={"ai_key_from": "credential"})
    said = refused.results["h2"]["message"]
    assert (
        "systemd: is of version 247, and LoadCredentialEncrypted= needs 250 or newer; set ai_key_from" in said
    )
    with walk("docs/how-to/key-sources.md", "A credential of systemd") as page:
        # No package of Debian 12 brings this folder (systemd/systemd issue 35077).
        fleet.on("h1", "set -e; rm -rf /etc/credstore.encrypted; " + PAGE_KEYS + page.take())
        lay(fleet, "ai-client.key", KEY)
        deployed = fleet.play("deploy", key="", variables=chosen)
        assert deployed.status == 0, deployed.output
        check_signs(fleet, current=KEY, following="")
        fleet.on("h1", "set -e; " + PAGE_KEYS + page.take())
        lay(fleet, "ai-client.key.next", KEY_2)
        fleet.on("h2", "systemctl restart ai-client")
        check_signs(fleet, current=KEY, following=KEY_2)
        fleet.on("h1", "set -e; " + PAGE_KEYS + page.take())
        lay(fleet, "ai-client.key", KEY_2)
        fleet.on("h2", f"rm {STORE}/ai-client.key.next; systemctl restart ai-client")
        check_signs(fleet, current=KEY_2, following="")
    again = fleet.play("deploy", key="", variables=chosen)
    assert (again.status, again.changed) == (0, {"h1": False, "h2": False}), again.output
    for host in fleet.hosts:
        # The hosts' own: no decommission takes it.
        fleet.on(host, "rm /etc/credstore*/ai-client.key")


def check_signs(fleet: Fleet, *, current: str, following: str) -> None:
    """The service sees these two, answers by them, and no file of the fleet's holds one."""
    for host in fleet.hosts:
        assert ask_gateway(fleet, host)["object"] == "chat.completion"
        assert (fleet.on(host, SEEN), fleet.on(host, f"{SEEN}.next")) == (current, following)
        assert "hs_test_" not in fleet.on(host, "cat /etc/ai-client/key")
        assert "Invalid" not in fleet.on(host, "journalctl --no-pager -o cat _PID=1 | grep ai-client || true")
        report = json.loads(fleet.on(host, "/opt/ai-client/bin/ai-client --health-check --json"))
        assert (
            "/credentials/ai-client.service/ai-client.key, fingerprint" in report["checks"]["key"]["detail"]
        )


def test_a_decommission_leaves_nothing(old_and_new: Fleet) -> None:
    """No file, no unit, no user."""
    fleet = old_and_new
    gone = fleet.play("decommission", key=KEY)
    assert gone.status == 0, gone.output
    for host in fleet.hosts:
        left = "find /etc /opt /var/lib /var/cache /var/log /run -name '*ai-client*'; getent passwd ai-client || true"
        assert fleet.on(host, left) == ""
    assert fleet.play("decommission", key=KEY).changed == {"h1": False, "h2": False}


def test_a_host_without_a_fitting_python_says_what_to_do(old_and_new: Fleet) -> None:
    """With `ai_python: host` Debian 11 is refused, with the remedy; nothing is laid down."""
    refused = old_and_new.play("deploy", "--limit", "h2", key=KEY, variables={"ai_python": "host"})
    assert refused.status != 0
    assert "has no tree cp39-" in refused.results["h2"]["message"]
    assert "tools/artefact/build --own" in refused.results["h2"]["message"]
    assert old_and_new.on("h2", "ls /opt") == ""


def test_a_host_without_python_lives_as_the_others(old_and_new: Fleet) -> None:
    """Python is taken off the old one, last of all. The plan says what runs instead; nothing is left."""
    fleet, only = old_and_new, ("--limit", "h2")
    fleet.on("h2", "rm -rf /usr/bin/python3* /usr/lib/python3 /usr/lib/python3.9; ! command -v python3")
    looked = fleet.play("deploy", *only, "--check", "--diff", key=KEY)
    assert looked.status == 0, looked.output
    assert [n for n in looked.results["h2"]["notes"] if n.startswith("no Python on this host: looked at by")]
    assert OWN in "".join(d["diff"] for d in looked.results["h2"]["diffs"])
    assert fleet.on("h2", "ls /opt /var/tmp | grep ai-client || true") == ""

    assert fleet.play("deploy", *only, key=KEY).changed == {"h2": True}
    assert ask_gateway(fleet, "h2")["object"] == "chat.completion"
    again = fleet.play("deploy", *only, key=KEY)
    assert (again.status, again.changed) == (0, {"h2": False}), again.output
    pid = fleet.on("h2", SERVICE_PID)
    rotated = fleet.play("deploy", *only, "--tags", "secrets,verify", key=KEY_2)
    assert rotated.results["h2"]["changed_paths"] == ["/etc/ai-client/key"]
    assert fleet.on("h2", SERVICE_PID) == pid

    gone = fleet.play("decommission", *only, key=KEY)
    assert gone.status == 0, gone.output
    left = "find /etc /opt /var /run -name '*ai-client*'; getent passwd ai-client || true"
    assert fleet.on("h2", left) == ""
