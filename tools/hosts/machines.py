"""`host up` and `host down`: one systemd machine over its overlay, in a network namespace of its own.

A host is made in steps: seed its files and keys, pin the keys, mark it made. A run that finds it half-made starts over,
for nothing has ever run there. Then, whenever it does not run: mount, wire, boot; its files and keys stay.
"""

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tools.hosts import mounts, netns, processes, ssh
from tools.hosts.errors import HostsError
from tools.hosts.files import locked, read_record, write_record, write_text
from tools.hosts.image import ensure_image, image_path
from tools.hosts.inputs import LOGIN, HostSpec, NetworkSpec, check_placement
from tools.hosts.network import read_network
from tools.hosts.places import FOLDER_VARIABLE, FleetPlaces, HostPlaces
from tools.hosts.prerequisites import require_inotify_instances, require_space
from tools.hosts.suites import SUITES

BOOT_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
LOGIN_TRY_S = 5.0
NEEDED_MB = 200
CONSOLE_TAIL_LINES = 8
UID = 1000
NSPAWN_FOLDER = Path("/run/systemd/nspawn")
NSPAWN_KINDS = ("propagate", "unix-export")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Made:
    """A host that has its files and keys, whether it runs or not."""

    spec: HostSpec
    network: NetworkSpec
    image: Path
    key: str
    """The public host key, `ssh-ed25519 …`."""


def host_up(places: FleetPlaces, spec: HostSpec, say: Say) -> dict[str, object]:
    """Makes, finishes, or boots a host, and returns when its login gets in."""
    host = places.host(spec.name)
    if not is_made(host):
        # Before any lock: it takes long, and others need not wait for it.
        ensure_image(spec.suite, say)
    with _held(host, say):
        network = read_network(places, spec.fleet)
        if network is None:
            raise HostsError(f"fleet {spec.fleet}", "has no network", "run: network up")
        check_placement(spec, network)
        with locked(places.folder / ".bridge.lock", say=say):
            netns.raise_bridge(places, network)
        made = _ensure_made(host, spec, network, say)
        if not is_up(host):
            started = time.monotonic()
            _boot(host, made, say)
            _await_login(host, made)
            say(f"host {spec.name}: up after {time.monotonic() - started:.1f} s")
        else:
            _await_login(host, made)
    return {"name": spec.name, "address": str(spec.address.ip), "host_keys": [made.key]}


def host_down(places: FleetPlaces, name: str, say: Say) -> dict[str, object]:
    """Stops a host and removes all of it."""
    host = places.host(name)
    with _held(host, say):
        _remove(host)
        ssh.forget_host(places, name, say)
        host.lock.unlink(missing_ok=True)
    say(f"host {name}: down")
    return {}


def clear(host: HostPlaces, *, with_link: bool) -> None:
    """Removes what a host leaves once its processes are gone; needs no record of it."""
    netns.unwire_host(host, with_link=with_link)
    _clear_traces(host)
    mounts.remove_folder(host.folder)


def stop(host: HostPlaces) -> None:
    """Shuts a host down in order, or by force after a while."""
    processes.stop(host.process, cgroup=host.cgroup, deadline_s=STOP_TIMEOUT_S)


def is_up(host: HostPlaces) -> bool:
    """Whether the recorded container is there, with all its cables."""
    record = read_record(host.record)
    process = processes.read_process(host.process)
    if record is None or process is None or not process.is_running():
        return False
    return netns.is_wired(host, with_link=record.get("link") is not None)


def is_made(host: HostPlaces) -> bool:
    """Whether the host has all its files and keys."""
    record = read_record(host.record)
    return record is not None and record.get("made") is True


def _remove(host: HostPlaces) -> None:
    stop(host)
    record = read_record(host.record)
    clear(host, with_link=record is not None and record.get("link") is not None)


def _clear_traces(host: HostPlaces) -> None:
    """Removes what a killed systemd-nspawn leaves of its own; since version 257 it would refuse to start over it."""
    if host.root.exists():
        seen = host.root.stat()
        (NSPAWN_FOLDER / "locks" / f"inode-{seen.st_dev}:{seen.st_ino}").unlink(missing_ok=True)
    for kind in NSPAWN_KINDS:
        mounts.remove_folder(NSPAWN_FOLDER / kind / host.machine)


@contextmanager
def _held(host: HostPlaces, say: Say) -> Iterator[None]:
    """Hosts of one fleet are made side by side; network and purge wait for all of them."""
    with ExitStack() as stack:
        stack.enter_context(locked(host.fleet.lock, shared=True, say=say))
        stack.enter_context(locked(host.lock, say=say))
        yield


def _ensure_made(host: HostPlaces, spec: HostSpec, network: NetworkSpec, say: Say) -> Made:
    record = read_record(host.record) or {}
    wanted = {"address": str(spec.address), "link": spec.link and str(spec.link), "suite": spec.suite}
    if record.get("made") is True and record["suite"] == spec.suite:
        image = _existing_image(host, spec, Path(str(record["image"])), say)
        if any(record[key] != value for key, value in wanted.items()):
            say(f"host {spec.name}: moving it to {spec.address}")
            stop(host)
            write_record(host.record, {**record, **wanted})
    else:
        if record.get("made") is True:
            say(f"host {spec.name}: making it anew, {record['suite']} becomes {spec.suite}")
        _remove(host)
        image = ensure_image(spec.suite, say)
        record = {**wanted, "image": str(image), "made": False}
        _seed(host, spec, record)
    key = " ".join((host.keys / f"{ssh.HOST_KEY}.pub").read_text().split()[:2])
    ssh.record_host(host.fleet, spec.name, str(spec.address.ip), key, say)
    if record["made"] is not True:
        write_record(host.record, {**record, "made": True})
    return Made(spec, network, image, key)


def _existing_image(host: HostPlaces, spec: HostSpec, image: Path, say: Say) -> Path:
    """A host stays on the image it was made from, also where the recipe has changed since."""
    if not image.is_dir() and image == image_path(spec.suite):
        ensure_image(spec.suite, say)
    if not image.is_dir():
        remedy = f"take the host down and up again: it is then made from {image_path(spec.suite).name}"
        raise HostsError(f"host {host.name}", f"its base image {image} is gone", remedy)
    return image


def _seed(host: HostPlaces, spec: HostSpec, record: Mapping[str, object]) -> None:
    """Lays down what tells this host from its image."""
    require_space(host.fleet.folder, needed_mb=NEEDED_MB, variable=FOLDER_VARIABLE)
    host.folder.mkdir(parents=True)
    write_record(host.record, record)
    ssh.ensure_key_pair(host.keys / ssh.HOST_KEY, spec.name)
    for folder in (host.work, host.root, host.upper / "etc/ssh", host.upper / f"home/{LOGIN}/.ssh"):
        folder.mkdir(parents=True)
    write_text(host.upper / "etc/hostname", f"{spec.name}\n", mode=0o644)
    hosts = f"127.0.0.1 localhost\n{spec.address.ip} {spec.name}\n::1 localhost\n"
    write_text(host.upper / "etc/hosts", hosts, mode=0o644)
    write_text(host.upper / "etc/machine-id", f"{uuid.uuid4().hex}\n", mode=0o444)
    for half, mode in ((ssh.HOST_KEY, 0o600), (f"{ssh.HOST_KEY}.pub", 0o644)):
        write_text(host.upper / "etc/ssh" / half, (host.keys / half).read_text(), mode=mode)
    public = host.fleet.identity.with_suffix(".pub").read_text()
    home = host.upper / "home" / LOGIN
    for folder in (home, home / ".ssh"):
        folder.chmod(0o700)
        os.chown(folder, UID, UID)
    write_text(home / ".ssh" / "authorized_keys", public, mode=0o600, owner=UID)


def _boot(host: HostPlaces, made: Made, say: Say) -> None:
    require_inotify_instances(say)
    # What a killed container left running is ended first: two of them on one overlay would damage it.
    stop(host)
    _clear_traces(host)
    if not mounts.is_mounted(host.root):
        mounts.mount_overlay(host, made.image)
    netns.wire_host(host, made.spec, made.network.link if made.spec.link else None)
    host.console.unlink(missing_ok=True)
    processes.start(
        nspawn_argv(host, suite=made.spec.suite),
        cgroup=host.cgroup,
        log=host.console,
        cwd=host.folder,
        record=host.process,
        facts={},
    )


def nspawn_argv(host: HostPlaces, *, suite: str) -> list[str]:
    """The container, known to no service manager: PID 1 of this machine may be anything."""
    return [
        *(("env", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1") if SUITES[suite].is_unified else ()),
        "systemd-nspawn",
        "--quiet",
        "--boot",
        "--register=no",
        "--keep-unit",
        "--settings=no",
        f"--directory={host.root}",
        f"--machine={host.machine}",
        f"--hostname={host.name}",
        f"--network-namespace-path={netns.path_of(host.netns)}",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--console=pipe",
    ]


def _await_login(host: HostPlaces, made: Made) -> None:
    """Ready means what a deploy needs: sshd shows the pinned key, the login gets in and may sudo."""
    link = made.network.link if made.spec.link else None
    address, away = (made.spec.address, host.fleet.netns) if link is None else (link.jump, None)
    pin = host.folder / "pin"
    ssh.write_pin(pin, str(address.ip), made.key)
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    said = "sshd does not answer"
    while time.monotonic() < deadline and is_up(host):
        if greets(away, str(address.ip)):
            refusal = ssh.try_login(
                identity=host.fleet.identity,
                pin=pin,
                address=str(address.ip),
                netns=away,
                timeout_s=LOGIN_TRY_S,
            )
            if refusal is None:
                return
            said = refusal
        time.sleep(processes.POLL_S)
    if not is_up(host):
        said = "its container ended"
    console = host.console.read_text(errors="replace").splitlines() if host.console.exists() else []
    tail = " | ".join(line.strip() for line in console[-CONSOLE_TAIL_LINES:])
    raise HostsError(f"host {host.name}", f"{said}; its console ends with: {tail}", f"see {host.console}")


def greets(away: str | None, address: str) -> bool:
    """Whether sshd sends its banner."""
    with (
        suppress(OSError),
        netns.inside(away),
        socket.create_connection((address, 22), timeout=1) as connection,
    ):
        return connection.recv(4) == b"SSH-"
    return False
