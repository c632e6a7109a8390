"""The life of a stack on real hosts, through the real engine, in the order in which users live it."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from tests.fleet.clones import another
from tests.fleet.conftest import HOSTS, STACK, Fleet, hosts_tool
from tests.fleet.leaks import Watch, in_files, in_text

pytestmark = [pytest.mark.engine, pytest.mark.hosts]

KEY_FILE = "etc/ai-client/key"


@contextmanager
def forwarded(fleet: Fleet, host: str, port: int) -> Iterator[int]:
    """A local port that leads to a port on a host's loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        local = int(probe.getsockname()[1])
    argv = ["ssh", "-F", fleet.clone.ssh_config(), "-N", "-L", f"127.0.0.1:{local}:127.0.0.1:{port}", host]
    with subprocess.Popen(argv, env=fleet.clone.environment()) as tunnel:
        try:
            _wait_for_port(local)
            yield local
        finally:
            tunnel.terminate()


def _wait_for_port(port: int, within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on port {port}"
            time.sleep(0.05)
        else:
            return


def test_up_makes_the_hosts_and_configures_them_without_a_leak(fleet: Fleet) -> None:
    """The first `up`: hosts, claims and deploys are made; the key is in no argument and no temporary file meanwhile."""
    with Watch(fleet.key, [Path("/tmp"), fleet.clone.scratch]) as watch:
        run = fleet.clone.up()
    assert watch.samples > 20
    assert watch.hits == set()
    assert set(run.changed().values()) == {"create"}
    results = fleet.clone.output("hosts")
    assert set(results) == set(HOSTS)
    for host, result in results.items():
        assert result["changed"] is True, host
        assert result["failed"] is False, host
        assert result["health"]["ok"] is True, host


def test_the_openai_sdk_gets_an_answer_from_a_hosts_gateway(fleet: Fleet) -> None:
    """Any OpenAI SDK works by changing base_url: plain and streaming, with the token that was made with the fleet."""
    token = (fleet.local / "gateway-token").read_text().strip()
    for host in HOSTS:
        with forwarded(fleet, host, 8800) as port:
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=token, max_retries=0)
            question = [{"role": "user", "content": "Say hello."}]
            answer = client.chat.completions.create(model="gpt-4.1", messages=question)
            assert answer.choices[0].message.content
            chunks = list(client.chat.completions.create(model="gpt-4.1", messages=question, stream=True))
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_port_without_a_token_gives_nothing(fleet: Fleet) -> None:
    """Any local user can reach a port: TCP always needs a token."""
    with forwarded(fleet, "api-dev-01", 8800) as port:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_the_hosts_are_reached_through_the_jump_host_alone(fleet: Fleet) -> None:
    """Targets are in a private namespace: the control side has no route of its own to them."""
    routes = subprocess.run(["ip", "-4", "route", "show"], capture_output=True, text=True, check=True).stdout
    assert "10.88.0." not in routes
    assert fleet.clone.ssh("api-dev-01", "hostname").output.strip() == "api-dev-01"
    assert fleet.clone.ssh("batch-dev-02", "python3 -V").output.startswith("Python 3.13")
    assert fleet.clone.ssh("api-dev-01", "python3 -V").output.startswith("Python 3.11")


def test_root_cannot_log_in(fleet: Fleet) -> None:
    """Login is `deploy`, with sudo; never root over ssh."""
    refused = fleet.clone.run(
        "ssh", "-F", fleet.clone.ssh_config(), "-l", "root", "api-dev-01", "true", expect=None
    )
    assert refused.status != 0
    assert fleet.clone.ssh("api-dev-01", "sudo -n id -u").output.strip() == "0"


def test_the_dynamic_inventory_reaches_every_host(fleet: Fleet) -> None:
    """Day-two commands: `ansible all -i ansible/inventory/fleet.py -m ping`."""
    run = fleet.clone.run(
        "env",
        "ANSIBLE_CONFIG=ansible/ansible.cfg",
        "ansible",
        "all",
        "-i",
        "ansible/inventory/fleet.py",
        "-m",
        "ping",
    )
    assert run.output.count('"ping": "pong"') == len(HOSTS)


def test_a_second_up_changes_nothing(fleet: Fleet) -> None:
    """Zero means zero: no change in the preview, none in `up`, and no service is started anew."""
    before = {host: _main_pid(fleet, host) for host in HOSTS}
    assert fleet.clone.preview("--expect-no-changes").changed() == {}
    assert fleet.clone.up("--expect-no-changes").changed() == {}
    assert {host: _main_pid(fleet, host) for host in HOSTS} == before


def _main_pid(fleet: Fleet, host: str) -> str:
    return fleet.clone.ssh(host, "systemctl show --property MainPID --value ai-client").output.strip()


def test_a_clone_elsewhere_sees_no_change(fleet: Fleet) -> None:
    """Inputs in state are portable: another checkout of the same revision has nothing to change."""
    second = another(fleet.clone, fleet.work / "deeper" / "second")
    assert second.preview("--expect-no-changes").changed() == {}


def test_the_key_is_nowhere_but_in_the_key_files(fleet: Fleet) -> None:
    """State, backups, history, logs, console output, outputs, and the hosts' whole file systems."""
    key_files = [fleet.root_of(host) / KEY_FILE for host in HOSTS]
    assert all(fleet.key in path.read_text() for path in key_files)
    uppers = [fleet.local / "hosts" / host / "upper" / KEY_FILE for host in HOSTS]
    assert in_files([fleet.work, fleet.local], fleet.key, allowed=key_files + uppers) == []
    assert [in_text(text, fleet.key) for text in fleet.clone.outputs if in_text(text, fleet.key)] == []
    assert in_text(json.dumps(fleet.clone.output("inventory")), fleet.key) == []
    exported = fleet.clone.pulumi("stack", "export").output
    assert in_text(exported, fleet.key) == []


def test_drift_is_named_by_the_preview_and_mended_by_up_on_that_host_alone(fleet: Fleet) -> None:
    """A file edited and the service stopped by hand on one host: the preview says so, `up` mends it there alone."""
    others = {host: _main_pid(fleet, host) for host in HOSTS if host != "batch-dev-01"}
    fleet.clone.ssh("batch-dev-01", "sudo sh -c 'echo \"# by hand\" >> /etc/ai-client/ai-client.conf'")
    fleet.clone.ssh("batch-dev-01", "sudo systemctl stop ai-client.service ai-client.socket")
    preview = fleet.clone.preview()
    assert "batch-dev-01: differs" in preview.messages()
    assert "# by hand" in preview.messages()
    assert preview.changed() == {"ai_batch_workers-1": "update"}
    assert fleet.clone.up().changed() == {"ai_batch_workers-1": "update"}
    assert "# by hand" not in (fleet.root_of("batch-dev-01") / "etc/ai-client/ai-client.conf").read_text()
    assert {host: _main_pid(fleet, host) for host in others} == others
    assert fleet.clone.up("--expect-no-changes").changed() == {}


def test_hosts_that_went_down_come_back_as_they_were(fleet: Fleet) -> None:
    """After the machine was rebooted every host is gone from memory and nothing from disk: `up` boots them again."""
    status = hosts_tool("status", order={"fleet": STACK})
    keys = {name: host["host_keys"] for name, host in status["hosts"].items()}
    for record in fleet.local.glob("hosts/*/process.json"):
        fleet.kill_host(record.parent.name)
    fleet.clone.up()
    status = hosts_tool("status", order={"fleet": STACK})
    assert all(host["running"] for host in status["hosts"].values())
    assert {name: host["host_keys"] for name, host in status["hosts"].items()} == keys
    assert fleet.clone.ssh("api-dev-01", "systemctl is-active ai-client").output.strip() == "active"
