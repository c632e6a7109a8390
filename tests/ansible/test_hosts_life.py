"""The playbooks on real hosts, Debian 12 and 13, from the first look to the last file gone."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from applier.on_controller.rendering import render_config

from tests.ansible.file_tree import TREE, different
from tests.ansible.real_fleet import HOSTS, Fleet, repacked
from tests.ansible.test_role import TEMPLATES, defaults

pytestmark = [pytest.mark.hosts, pytest.mark.slow]

KEY, KEY_2 = "hs_test_real_hosts_key_1", "hs_test_real_hosts_key_2"
SOCKET = "/run/ai-client/gateway.sock"


def tree(fleet: Fleet) -> dict[str, set[str]]:
    """What is on each host: path, rights, owner and size of every file, folder and link."""
    return {host: set(fleet.on(host, TREE).splitlines()) for host in HOSTS}


@pytest.fixture
def clean(fleet: Fleet) -> Iterator[Fleet]:
    """Hosts that nothing of ours is on, before and after."""
    yield fleet
    assert fleet.play("decommission", key=KEY).status == 0


def ask_gateway(fleet: Fleet, host: str) -> dict[str, object]:
    """A chat completion through the host's gateway."""
    body = json.dumps({"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}]})
    to = f"--unix-socket {SOCKET} http://localhost/v1/chat/completions"
    command = f"curl -s {to} -H 'content-type: application/json' -d '{body}'"
    answer: dict[str, object] = json.loads(fleet.on(host, command))
    return answer


def check_deployed(fleet: Fleet, host: str) -> None:
    """A gateway that answers, the configuration that plain Jinja2 makes, the key's rights, the unit's hardening."""
    assert ask_gateway(fleet, host)["object"] == "chat.completion"
    expected = render_config(TEMPLATES, {**defaults(), "ai_base_url": "http://10.88.0.1:8000/v1"})
    assert fleet.on(host, "cat /etc/ai-client/ai-client.conf") == expected.strip()
    assert fleet.on(host, "stat -c '%a %U:%G' /etc/ai-client/key") == "640 root:ai-client"
    scored = fleet.on(host, "systemd-analyze security ai-client.service --no-pager | tail -1")
    assert float(scored.split(":")[1].split()[0]) <= 2.0
    assert fleet.on(host, "/opt/ai-client/bin/ai-client --version").startswith("ai-client ")


def test_a_host_lives_from_the_first_look_to_the_last_file_gone(clean: Fleet) -> None:
    """Check writes nothing, deploy brings a working gateway, again changes nothing, decommission leaves nothing."""
    fleet = clean
    before = tree(fleet)
    looked = fleet.play("deploy", "--check", "--diff", key=KEY)
    assert (looked.status, looked.changed) == (0, {"h1": True, "h2": True}), looked.output
    assert different(tree(fleet), before) == []
    assert "[gateway]" in "".join(diff["diff"] for diff in looked.results["h1"]["diffs"])

    deployed = fleet.play("deploy", key=KEY)
    assert (deployed.status, deployed.changed) == (0, {"h1": True, "h2": True}), deployed.output
    for host in HOSTS:
        assert deployed.results[host]["health"]["ok"]
        check_deployed(fleet, host)

    pids = {host: fleet.on(host, "systemctl show -P MainPID ai-client") for host in HOSTS}
    after = tree(fleet)
    again = fleet.play("deploy", key=KEY)
    assert (again.status, again.changed) == (0, {"h1": False, "h2": False}), again.output
    assert different(tree(fleet), after) == []
    assert {host: fleet.on(host, "systemctl show -P MainPID ai-client") for host in HOSTS} == pids
    assert fleet.play("verify", key=KEY).status == 0

    gone = fleet.play("decommission", key=KEY)
    assert gone.status == 0, gone.output
    assert different(tree(fleet), before) == []
    for host in HOSTS:
        assert (
            fleet.on(
                host,
                "systemctl list-units --all --plain --no-legend 'ai-client*'; getent passwd ai-client || true",
            )
            == ""
        )
    assert fleet.play("decommission", key=KEY).changed == {"h1": False, "h2": False}


def test_a_rotation_reaches_the_service_without_a_restart(clean: Fleet) -> None:
    """`--tags secrets` writes the key file and reloads: the same process, the new fingerprint."""
    fleet = clean
    first = fleet.play("deploy", key=KEY)
    pids = {host: fleet.on(host, "systemctl show -P MainPID ai-client") for host in HOSTS}
    rotated = fleet.play("deploy", "--tags", "secrets,verify", key=KEY_2)
    assert rotated.status == 0, rotated.output
    for host in HOSTS:
        result = rotated.results[host]
        assert result["changed_paths"] == ["/etc/ai-client/key"]
        assert result["key_fingerprint"] != first.results[host]["key_fingerprint"]
        assert result["key_fingerprint"] in result["health"]["checks"]["key"]["detail"]
        assert fleet.on(host, "systemctl show -P MainPID ai-client") == pids[host]


def test_drift_is_named_by_the_look_and_mended_by_the_run(clean: Fleet) -> None:
    """An edited byte, a mode, a stopped, disabled or masked unit, a changed package."""
    fleet = clean
    fleet.play("deploy", key=KEY)
    fleet.on("h1", "sed -i s/30/31/ /etc/ai-client/ai-client.conf; chmod 666 /etc/ai-client/key")
    fleet.on(
        "h1",
        "systemctl stop ai-client.socket ai-client-tcp.socket ai-client; systemctl disable ai-client 2>&1",
    )
    fleet.on(
        "h2",
        "systemctl mask --runtime ai-client 2>&1; echo >> /opt/ai-client/current/lib/ai_client/__init__.py",
    )
    looked = fleet.play("deploy", "--check", "--diff", key=KEY)
    named = {host: set(looked.results[host]["changed_paths"]) for host in HOSTS}
    assert {"/etc/ai-client/ai-client.conf", "/etc/ai-client/key", "unit ai-client.service"} <= named["h1"]
    assert "/etc/systemd/system/multi-user.target.wants/ai-client.service" in named["h1"]
    assert any(path.startswith("/opt/ai-client/releases/") for path in named["h2"])
    mended = fleet.play("deploy", key=KEY)
    assert mended.status == 0, mended.output
    assert fleet.play("deploy", "--check", key=KEY).changed == {"h1": False, "h2": False}
    assert (
        fleet.on("h1", "systemctl is-enabled ai-client; systemctl is-active ai-client") == "enabled\nactive"
    )


def test_a_bad_release_goes_back_within_the_run(clean: Fleet, tmp_path: Path) -> None:
    """One that does not start and one that is unhealthy: the last good one serves again, and the run fails."""
    fleet = clean
    good = fleet.play("deploy", key=KEY)
    broken = {
        "dead": {"main.py": "\n", "lib/ai_client/cli/serve.py": "\nraise RuntimeError('planted')\n"},
        "sick": {"lib/ai_client/configure/health.py": _SICK},
    }
    for name, appended in broken.items():
        bad = repacked(fleet.artefact, tmp_path / name, version="1.0.0", appended=appended)
        failed = fleet.play("deploy", key=KEY, variables={"ai_artefacts": str(bad), "ai_health_deadline": 2})
        assert failed.status != 0
        for host in HOSTS:
            result = failed.results[host]
            assert (result["failed"], result["rolled_back"]) == (True, True), (name, result["message"])
            assert result["release"] == good.results[host]["release"]
            assert ask_gateway(fleet, host)["object"] == "chat.completion"
    assert fleet.play("deploy", "--check", key=KEY).changed == {"h1": False, "h2": False}


_SICK = """

_as_json = as_json


def as_json(report):
    return _as_json({**report, "config": Check(False, "planted")})
"""


def test_an_upgrade_refuses_no_request(clean: Fleet, tmp_path: Path) -> None:
    """Requests go on, one after the other, while the release changes: each is answered."""
    fleet, fast = clean, {"ai_rpm": 100_000}
    fleet.play("deploy", key=KEY, variables=fast)
    newer = repacked(fleet.artefact, tmp_path / "newer", version="1.0.0", appended={"main.py": "# newer\n"})
    fleet.on(
        "h1", 'rm -f /tmp/answers /tmp/stop; nohup python3 -c "$0" >/dev/null 2>&1 &'.replace("$0", ASKER)
    )
    upgraded = fleet.play("deploy", key=KEY, variables={**fast, "ai_artefacts": str(newer)})
    assert upgraded.status == 0, upgraded.output
    assert upgraded.results["h1"]["actions"] == ["hand ai-client.service over to the release"]
    answers = fleet.on(
        "h1", "touch /tmp/stop; while [ ! -s /tmp/answers ]; do sleep 0.1; done; cat /tmp/answers"
    ).split()
    assert int(answers[0]) > 10
    assert answers[1:] == ["0"]


# Counts answers and failures until it is told to stop; no double quotes, since a shell passes it on.
ASKER = """
import os, socket
good = bad = 0
while not os.path.exists('/tmp/stop'):
    try:
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(20)
        s.connect('/run/ai-client/gateway.sock')
        s.sendall(b'GET /v1/models HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n')
        head = s.recv(100)
        ok = head.startswith(b'HTTP/1.1 200')
        while s.recv(65536):
            pass
    except OSError:
        ok = False
    good, bad = good + ok, bad + (not ok)
open('/tmp/answers', 'w').write(f'{good} {bad}')
"""


def test_nothing_secret_is_ever_printed(clean: Fleet, tmp_path: Path) -> None:
    """At `-vvvv`, with diffs, in a run that works, one that fails and one whose applier crashes."""
    fleet = clean
    canary = "hs_test_canary_5fd2c8e19b"
    outputs = [fleet.play("deploy", "-vvvv", "--diff", key=canary).output]
    broken = repacked(
        fleet.artefact, tmp_path / "x", version="1.0.0", appended={"lib/ai_client/configure/health.py": _SICK}
    )
    bad = {"ai_artefacts": str(broken), "ai_health_deadline": 1}
    outputs.append(fleet.play("deploy", "-vvvv", "--diff", key=canary + "2", variables=bad).output)
    fleet.on("h1", "rm /etc/ai-client/claim.json; mkdir /etc/ai-client/claim.json")
    outputs.append(fleet.play("deploy", "-vvvv", "--diff", key=canary + "3").output)
    fleet.on("h1", "rmdir /etc/ai-client/claim.json")
    results = (fleet.folder / "results.jsonl").read_text()
    for seen in (
        *outputs,
        results,
        *(fleet.on(host, "journalctl --no-pager --output cat") for host in HOSTS),
    ):
        assert not _leaks(seen, canary)
    assert _leaks(f"x {canary} y", canary)


def _leaks(text: str, secret: str) -> bool:
    """Whether a text holds the secret in clear, base64, hex or URL form."""
    raw = secret.encode()
    forms = [
        secret,
        raw.hex(),
        quote(secret, safe=""),
        *(base64.b64encode(b"x" * n + raw).decode()[4:-4] for n in range(3)),
    ]
    return any(form in text for form in forms)


def test_hosts_that_cannot_be_changed_say_why(clean: Fleet) -> None:
    """Locked by another run, owned by another stack, not reachable, no space: each clear, none touched."""
    fleet = clean
    fleet.play("deploy", key=KEY)
    fleet.on("h1", "nohup flock /etc sleep 600 >/dev/null 2>&1 & echo $! > /run/held")
    deadline_s = time.monotonic() + 20
    while fleet.ssh("h1", "sudo flock --nonblock /etc true").returncode == 0:
        assert time.monotonic() < deadline_s
    locked = fleet.play("deploy", key=KEY)
    fleet.on("h1", "pkill -P $(cat /run/held); kill $(cat /run/held); true")
    assert "is being changed by another run" in locked.results["h1"]["message"]
    assert locked.results["h2"]["failed"] is False
    other = fleet.play("deploy", key=KEY, variables={"ai_claim_owner": "fleet/other"})
    assert "belongs to fleet/test" in other.results["h2"]["message"]
    gone = {"all": {"hosts": {"gone": None}}}
    (fleet.folder / "gone.yml").write_text(yaml.safe_dump(gone))
    unreached = fleet.play("verify", "-i", str(fleet.folder / "gone.yml"), "--limit", "gone", key=KEY)
    assert unreached.results["gone"]["unreachable"] is True
