"""Fleets of real hosts for these tests; every one is purged at the end, also after a failure."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from tests.tools.hosts_control import Control, own_fleet

FIRST_LINK_OCTET = 200


@pytest.fixture(scope="session")
def new_control() -> Iterator[Callable[[str], Control]]:
    """Makes a fleet's control side; nothing of any of them may be left when the session ends."""
    octets = count(FIRST_LINK_OCTET)
    with ExitStack() as fleets:
        yield lambda fleet: fleets.enter_context(own_fleet(fleet, next(octets)))


@pytest.fixture(scope="session")
def fleet(new_control: Callable[[str], Control]) -> Control:
    """A jump host, a Debian 12 host and a Debian 13 host behind it, all up."""
    control = new_control("tools")
    control.ask("network", "up", order=control.network_order)
    control.ask("host", "up", order=control.jump_order())
    control.ask("host", "up", order={"name": "web-1", "address": "10.88.0.21/24", "suite": "bookworm"})
    control.ask("host", "up", order={"name": "web-2", "address": "10.88.0.22/24", "suite": "trixie"})
    return control


@pytest.fixture(scope="session")
def ssh_config(fleet: Control, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user writes from the tool's answers: pinned keys, private hosts through the jump host."""
    folder = tmp_path_factory.mktemp("ssh")
    hosts = fleet.ask("status")["hosts"]
    assert isinstance(hosts, dict)
    (folder / "known_hosts").write_text(
        "".join(f"{name} {key}\n" for name, host in hosts.items() for key in host["host_keys"])
    )
    lines = [
        "Host *",
        "User deploy",
        f"IdentityFile {fleet.places.identity}",
        "IdentitiesOnly yes",
        "BatchMode yes",
        "ConnectTimeout 10",
        "StrictHostKeyChecking yes",
        f"UserKnownHostsFile {folder / 'known_hosts'}",
    ]
    for name, host in hosts.items():
        address = fleet.jump_address if name == "jump" else host["address"]
        lines += [f"Host {name}", f"HostName {address}", f"HostKeyAlias {name}"]
        lines += [] if name == "jump" else ["ProxyJump jump"]
    # ssh takes the first value it meets, so the defaults go last.
    config = folder / "config"
    config.write_text("\n".join([*lines[8:], *lines[:8]]) + "\n")
    return config
