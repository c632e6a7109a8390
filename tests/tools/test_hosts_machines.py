"""Real hosts: what a user and a deploy find there. One fleet for all of these tests."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.hosts_control import Control
from tools.hosts.files import locked
from tools.hosts.processes import wait_until

pytestmark = pytest.mark.hosts

WEB_1 = {"name": "web-1", "address": "10.88.0.21/24", "suite": "bookworm"}
REPLY = 'python3 -c \'import socket; socket.create_server(("", 7000)).accept()[0].send(b"hello")\''


def ssh(config: Path, host: str, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a command on a host, as a user would."""
    argv = ["ssh", "-F", str(config), *options, host, command]
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )


def on(config: Path, host: str, command: str) -> str:
    """Runs a command that must succeed."""
    done = ssh(config, host, command)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def seen(fleet: Control, host: str) -> dict[str, object]:
    """What `status` tells of a host."""
    hosts = fleet.ask("status")["hosts"]
    assert isinstance(hosts, dict)
    return dict(hosts[host])


@pytest.mark.parametrize(("host", "version", "python"), [("web-1", "12", "3.11"), ("web-2", "13", "3.13")])
def test_private_hosts_are_reached_through_the_jump_host(ssh_config, host, version, python):
    """Debian 12 and 13 with their own Python, all their units up, the pinned key accepted."""
    assert on(ssh_config, host, ". /etc/os-release; echo $VERSION_ID") == version
    assert on(ssh_config, host, "python3 --version").startswith(f"Python {python}.")
    assert on(ssh_config, host, "hostname; id -un; sudo -n id -un").split() == [host, "deploy", "root"]
    assert on(ssh_config, host, "systemctl is-system-running --wait") == "running"


def test_python_on_a_host_can_do_what_the_client_needs(ssh_config):
    """TLS, SQLite and asyncio are there without any network."""
    for host in ("web-1", "web-2"):
        assert (
            on(ssh_config, host, "python3 -I -S -c 'import ssl, sqlite3, asyncio, ctypes; print(1)'") == "1"
        )
        assert on(
            ssh_config, host, "test -s /etc/ssl/certs/ca-certificates.crt && curl --version"
        ).startswith("curl")


@pytest.mark.parametrize("host", ["jump", "web-1", "web-2"])
def test_root_and_passwords_are_refused(ssh_config, host):
    """Only the login with its key gets in."""
    refused = ssh(ssh_config, host, "true", "-l", "root")
    assert refused.returncode == 255
    assert "Permission denied (publickey)" in refused.stderr
    without_key = ssh(ssh_config, host, "true", "-o", "PubkeyAuthentication=no")
    assert without_key.returncode == 255
    assert "Permission denied (publickey)" in without_key.stderr
    assert on(ssh_config, host, "sudo sshd -T | grep -E '^(password|kbdint).*auth'").split("\n") == [
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
    ]


def test_another_host_key_is_refused(fleet, ssh_config, tmp_path):
    """A pin is a pin: with the keys of two hosts exchanged nobody gets in."""
    pins = (ssh_config.parent / "known_hosts").read_text().splitlines()
    keys = {line.split()[0]: line.split(" ", 1)[1] for line in pins}
    wrong = tmp_path / "known_hosts"
    wrong.write_text(f"jump {keys['jump']}\nweb-1 {keys['web-2']}\nweb-2 {keys['web-1']}\n")
    argv = ["ssh", "-F", str(ssh_config), "-o", f"UserKnownHostsFile={wrong}", "web-1", "true"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr


def test_no_way_leads_past_the_jump_host(fleet, ssh_config):
    """The machine has no route to the private network, and the jump host is no router for who makes one."""
    link = fleet.places.link_interface
    routes = subprocess.run(["ip", "-4", "route", "show"], capture_output=True, text=True, check=True).stdout
    assert "10.88.0." not in routes
    private = "10.88.0.21/32"
    subprocess.run(["ip", "route", "add", private, "via", fleet.jump_address, "dev", link], check=True)
    try:
        with pytest.raises(TimeoutError):
            socket.create_connection(("10.88.0.21", 22), timeout=1.5)
    finally:
        subprocess.run(["ip", "route", "del", private], check=True)
    assert on(ssh_config, "web-1", "ip -4 route show default") == ""


def test_hosts_of_the_bridge_reach_each_other(ssh_config):
    """A gateway on one host can be asked from another."""
    listening = subprocess.Popen(
        ["ssh", "-F", str(ssh_config), "web-2", REPLY], stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        ask = "python3 -c 'import socket; print(socket.create_connection((\"10.88.0.22\", 7000), 5).recv(9))'"
        assert wait_until(lambda: ssh(ssh_config, "web-1", ask).stdout == "b'hello'\n", timeout_s=20)
    finally:
        listening.terminate()
        listening.wait(10)


def test_host_keys_are_made_here_before_the_first_boot(fleet, ssh_config):
    """What is recorded is what the host shows; no image holds a key, no two hosts share one."""
    recorded = json.loads(fleet.places.known_hosts.read_text())
    assert recorded["web-1"]["address"] == "10.88.0.21"
    keys = [key for host in recorded.values() for key in host["keys"]]
    assert len(set(keys)) == len(recorded) == 3
    shown = on(ssh_config, "web-1", "cat /etc/ssh/ssh_host_*_key.pub").split()
    assert " ".join(shown[:2]) == recorded["web-1"]["keys"][0]
    for host in ("web-1", "web-2"):
        image = json.loads(fleet.places.host(host).record.read_text())["image"]
        assert list(Path(image).glob("etc/ssh/ssh_host_*")) == []
        assert (Path(image) / "etc/machine-id").read_text() == ""


def test_the_fleets_folder_is_roots_alone(fleet):
    """It holds the control side's key."""
    assert fleet.places.folder.stat().st_mode & 0o777 == 0o700
    assert fleet.places.identity.stat().st_mode & 0o777 == 0o600


def test_up_again_changes_nothing(fleet):
    """The same answer, the same process, the same key."""
    before, pid = seen(fleet, "web-1"), fleet.pid("web-1")
    answer = fleet.ask("host", "up", order=WEB_1)
    assert answer == {"name": "web-1", "address": "10.88.0.21", "host_keys": before["host_keys"]}
    assert (seen(fleet, "web-1"), fleet.pid("web-1")) == (before, pid)
    assert fleet.ask("network", "up", order=fleet.network_order) == fleet.ask(
        "network", "up", order=fleet.network_order
    )


def test_a_killed_host_comes_back_with_content_and_keys(fleet, ssh_config):
    """`kill -9` of its container: status tells, `up` mends."""
    before = seen(fleet, "web-1")
    machine_id = on(ssh_config, "web-1", "echo kept > mark; sync; cat /etc/machine-id")
    os.kill(fleet.pid("web-1"), signal.SIGKILL)
    assert wait_until(lambda: seen(fleet, "web-1")["running"] is False, timeout_s=5)
    assert fleet.ask("host", "up", order=WEB_1)["host_keys"] == before["host_keys"]
    assert seen(fleet, "web-1") == before
    assert on(ssh_config, "web-1", "cat mark /etc/machine-id").split() == ["kept", machine_id]


def test_what_a_newer_nspawn_leaves_when_killed_is_cleared(fleet):
    """Since systemd 257 it mounts a folder of its own in /run, and would not start over that of a killed one."""
    left = Path("/run/systemd/nspawn/unix-export") / fleet.places.host("web-1").machine
    os.kill(fleet.pid("web-1"), signal.SIGKILL)
    left.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", left], check=True)
    fleet.ask("host", "up", order=WEB_1)
    assert not left.is_mount()


def test_hosts_come_back_after_a_reboot_of_the_machine(fleet, ssh_config):
    """With all that a reboot takes gone, `up` of each host brings it back, side by side, whatever the order."""
    before = fleet.ask("status")
    on(ssh_config, "web-2", "echo kept > mark")
    take_what_a_reboot_takes(fleet)
    assert fleet.ask("status")["network"] is False
    orders = [
        fleet.jump_order(),
        WEB_1,
        {**WEB_1, "name": "web-2", "address": "10.88.0.22/24", "suite": "trixie"},
    ]
    starting = [start(fleet, order) for order in orders]
    assert [process.wait(120) for process in starting] == [0, 0, 0]
    assert fleet.ask("status") == before
    assert on(ssh_config, "web-2", "cat mark") == "kept"


def take_what_a_reboot_takes(fleet: Control) -> None:
    """Ends the fleet's processes, mounts and namespaces by hand."""
    scope = fleet.places.netns
    for file in Path("/sys/fs/cgroup").rglob(f"{scope}/**/cgroup.procs"):
        for pid in map(int, file.read_text().split()):
            os.kill(pid, signal.SIGKILL)
    roots = [fleet.places.host(name).root for name in ("jump", "web-1", "web-2")]
    for root in roots:
        inode = root.stat()
        Path(f"/run/systemd/nspawn/locks/inode-{inode.st_dev}:{inode.st_ino}").unlink(missing_ok=True)
        assert wait_until(
            lambda root=root: subprocess.run(["umount", root], check=False).returncode == 0, timeout_s=10
        )
    for path in Path("/run/netns").glob(f"{scope}*"):
        subprocess.run(["ip", "netns", "del", path.name], check=True)


def start(fleet: Control, order: dict[str, object]) -> subprocess.Popen[bytes]:
    """Starts `host up` and does not wait."""
    from_file = fleet.folder / f"{order['name']}.order"
    from_file.write_text(json.dumps({"fleet": fleet.fleet, **order}))
    with from_file.open() as stdin:
        process = subprocess.Popen(
            [sys.executable, "-m", "tools.hosts", "host", "up"],
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            env=fleet.environment,
            cwd=Path(__file__).resolve().parents[2],
        )
    from_file.unlink()
    return process


def test_two_runs_at_once_make_one_host(fleet):
    """The second waits for the first and finds it done."""
    order = {"name": "twice", "address": "10.88.0.30/24", "suite": "bookworm"}
    both = [start(fleet, order), start(fleet, order)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert seen(fleet, "twice")["running"] is True
    containers = Path("/sys/fs/cgroup").rglob(f"{fleet.places.netns}/hosts/twice/supervisor/cgroup.procs")
    assert {pid for file in containers for pid in file.read_text().split()} == {str(fleet.pid("twice"))}
    fleet.ask("host", "down", order=order)


def test_a_host_taken_down_leaves_nothing_and_down_again_is_done(fleet):
    """Its process, mount, namespace, folder, pin and lock are gone; the other hosts are not."""
    order = {"name": "gone", "address": "10.88.0.31/24", "suite": "bookworm"}
    fleet.ask("host", "up", order=order)
    host = fleet.places.host("gone")
    fleet.ask("host", "down", order=order)
    assert fleet.ask("host", "down", order=order) == {}
    assert not any(path.exists() for path in (host.folder, host.lock, Path("/run/netns") / host.netns))
    assert "gone" not in json.loads(fleet.places.known_hosts.read_text())
    assert list(Path("/sys/fs/cgroup").rglob(f"{fleet.places.netns}/hosts/gone")) == []
    assert seen(fleet, "web-1")["running"] is True


def test_a_host_moves_to_another_address_with_its_content(fleet, ssh_config):
    """Only its cable changes; another suite is another host."""
    order = {"name": "moving", "address": "10.88.0.32/24", "suite": "bookworm"}
    first = fleet.ask("host", "up", order=order)
    moved = fleet.ask("host", "up", order={**order, "address": "10.88.0.33/24"})
    assert moved == {**first, "address": "10.88.0.33"}
    other = fleet.ask("host", "up", order={**order, "address": "10.88.0.33/24", "suite": "trixie"})
    assert other["host_keys"] != first["host_keys"]
    fleet.ask("host", "down", order=order)


def test_nothing_that_was_started_holds_the_callers_streams(fleet):
    """Who reads the answer to its end gets that end, while the host lives on."""
    order = json.dumps({"fleet": fleet.fleet, "name": "quiet", "address": "10.88.0.34/24"})
    started = time.monotonic()
    done = fleet.run("host", "up", text=order)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 60
    pid = fleet.pid("quiet")
    streams = {str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in (0, 1, 2)}
    assert streams == {"/dev/null", str(fleet.places.host("quiet").console)}
    assert os.getsid(pid) == pid
    fleet.ask("host", "down", order={"name": "quiet"})


def test_the_network_stays_while_it_has_hosts(fleet):
    """Its removal would cut them off; the refusal names them."""
    refusal = fleet.refusal("network", "down")
    assert "still has hosts (jump, web-1, web-2); take them down, or purge" in refusal
    changed = {**fleet.network_order, "bridge": "10.99.0.1/24"}
    assert "can't change under its hosts" in fleet.refusal("network", "up", order=changed)


def test_two_fleets_may_have_the_same_private_network_but_not_the_same_link(fleet, new_control):
    """The bridge is nobody's but the fleet's; the link is this machine's."""
    other = new_control("tools-2")
    taken = {"control": f"{fleet.control_address}/30", "jump": f"{fleet.jump_address}/30"}
    refusal = other.refusal("network", "up", order={**other.network_order, "link": taken})
    assert f"overlaps {fleet.control_address}/30 of interface {fleet.places.link_interface}" in refusal
    other.ask("network", "up", order=other.network_order)
    other.ask("host", "up", order=other.jump_order())
    assert seen(fleet, "jump")["running"] is True
    assert seen(other, "jump")["address"] == seen(fleet, "jump")["address"]
    other.ask("host", "down", order=other.jump_order())
    other.ask("network", "down")
    assert list(other.folder.iterdir()) == []


def test_a_host_that_can_not_boot_is_told_with_its_console(fleet, tmp_path):
    """The end of the console says why, and `up` again after the repair finishes."""
    order = {"name": "broken", "address": "10.88.0.35/24", "suite": "bookworm"}
    fleet.ask("host", "up", order=order)
    host = fleet.places.host("broken")
    os.kill(fleet.pid("broken"), signal.SIGKILL)
    init = host.root / "usr/lib/systemd/systemd"
    init.rename(init.with_name("away"))
    refusal = fleet.refusal("host", "up", order=order)
    assert "host broken: its container ended; its console ends with: " in refusal
    assert "init" in refusal
    init.with_name("away").rename(init)
    fleet.ask("host", "up", order=order)
    fleet.ask("host", "down", order=order)


def test_a_run_waits_for_another_of_the_same_fleet(fleet):
    """A purge and a new host never meet."""
    said: list[str] = []
    with locked(fleet.places.lock, say=said.append):
        process = start(fleet, WEB_1)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
    assert process.wait(60) == 0


def test_without_root_each_verb_says_so(fleet):
    """One line, with the remedy."""

    # Loaded as root: a user may not be allowed into the folder that this interpreter lies in.
    program = (
        "import os, sys; from tools.hosts.__main__ import main; "
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); sys.exit(main(sys.argv[1:]))"
    )
    done = fleet.run_program([sys.executable, "-c", program, "purge"], {})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "hosts: local hosts: only root can make or remove them; run as root, or with sudo\n"


def test_status_is_quick(fleet):
    """A preview asks it first: in processor time it is hardly more than the program's own start."""

    def used_s(run: Callable[[], object]) -> float:
        before = os.times()
        run()
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    start = [sys.executable, "-c", "import tools.hosts.__main__"]
    started_s = min(used_s(lambda: fleet.run_program(start, {})) for _ in range(3))
    asked_s = min(used_s(lambda: fleet.ask("status")) for _ in range(3))
    assert asked_s < 2 * started_s
