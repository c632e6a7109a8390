"""Services in the fleet's bridge namespace."""

import os
import signal
import socket
from ipaddress import IPv4Address

import pytest

from tests.tools.hosts_control import Control
from tools.hosts.inputs import Endpoint
from tools.hosts.processes import wait_until
from tools.hosts.services import accepts

pytestmark = pytest.mark.hosts


def order(port: int, *words: str) -> dict[str, object]:
    """A web server as stand-in for the simulator."""
    argv = ["python3", "-m", "http.server", "--bind", "10.88.0.1", str(port), *words]
    return {"name": "web", "argv": argv, "ready": {"address": "10.88.0.1", "port": port}}


def listens(fleet: Control, port: int) -> bool:
    return accepts(fleet.places.netns, Endpoint(IPv4Address("10.88.0.1"), port))


def service_pid(fleet: Control) -> int:
    return Control.recorded_pid(fleet.places.service("web").process)


def test_a_service_listens_on_the_bridge_alone(fleet):
    """Hosts reach it, this machine does not; up again changes nothing; down leaves nothing."""
    fleet.ask("service", "up", order=order(8000))
    assert listens(fleet, 8000)
    assert fleet.ask("status")["services"] == {"web": True}
    with pytest.raises(OSError, match="assign"), socket.socket() as here:
        here.bind(("10.88.0.1", 0))
    pid = service_pid(fleet)
    fleet.ask("service", "up", order=order(8000))
    assert service_pid(fleet) == pid
    fleet.ask("service", "down", order=order(8000))
    assert fleet.ask("service", "down", order=order(8000)) == {}
    assert not listens(fleet, 8000)
    assert fleet.ask("status")["services"] == {}
    assert not fleet.places.service("web").folder.exists()


def test_other_arguments_start_it_anew(fleet):
    """The old process has ended by then."""
    fleet.ask("service", "up", order=order(8000))
    fleet.ask("service", "up", order=order(8001))
    assert (listens(fleet, 8000), listens(fleet, 8001)) == (False, True)
    fleet.ask("service", "down", order={"name": "web"})


def test_a_killed_service_is_told_and_mended(fleet):
    """By status, and by up."""
    fleet.ask("service", "up", order=order(8000))
    os.kill(service_pid(fleet), signal.SIGKILL)
    assert wait_until(lambda: fleet.ask("status")["services"] == {"web": False}, timeout_s=5)
    fleet.ask("service", "up", order=order(8000))
    assert listens(fleet, 8000)
    fleet.ask("service", "down", order={"name": "web"})


def test_a_service_that_does_not_start_is_told_with_its_log(fleet):
    """Why it ended is in the error, and nothing of it is left after down."""
    refusal = fleet.refusal("service", "up", order={**order(8000), "argv": ["./no-such-program"]})
    assert "service web: ended at once; its log ends with: " in refusal
    assert "./no-such-program: No such file or directory" in refusal
    fleet.ask("service", "down", order={"name": "web"})
    assert fleet.ask("status")["services"] == {}
