"""The applier killed on real hosts, at steps that systemd, tar and useradd take part in."""

from __future__ import annotations

import platform
from typing import Any

import pytest
from applier.on_controller import wire
from applier.on_controller.delivery import make_delivery

from tests.ansible.real_fleet import UPSTREAM, Fleet
from tests.ansible.test_role import TEMPLATES, defaults

pytestmark = [pytest.mark.hosts, pytest.mark.slow]

KEY = "hs_test_killed_run_key"

# Appended to the module of the host's boundary: ends the program before the step of this name.
_TRAP = """

def _reached(self, point):
    if point.startswith({point!r}):
        os.kill(os.getpid(), 9)


Host.reached = _reached
"""

# Every other step is tried on a folder; these are the ones that other programs take part in.
POINTS = (
    "lay /etc/ai-client/claim.json",
    "compile the release",
    "put the release in place",
    "reload systemd",
    "restart the sockets",
    "conclude",
)


def request_for(fleet: Fleet, host: str) -> tuple[dict[str, Any], Any]:
    """What the playbook would send to a host."""
    values = {
        **defaults(),
        "ai_base_url": UPSTREAM,
        "ai_artefacts": str(fleet.artefact),
        "ai_claim": f"fleet/test/{host}",
        "ai_claim_owner": "fleet/test",
    }
    made = make_delivery(
        mode="apply",
        parts=frozenset({"deploy", "config", "secrets", "verify"}),
        check=False,
        values=values,
        secrets={"ai_api_key": KEY},
        templates=TEMPLATES,
    )
    return made.request, made.artefact


def trapped_program(point: str) -> bytes:
    """The program as it is sent, but for the trap."""
    modules = wire.modules()
    modules["on_host.host"] += _TRAP.format(point=point)
    return wire.encode_program((wire.APPLIER / "bootstrap.py").read_bytes(), modules)


@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_on_a_real_host_is_ended_by_the_next(fleet: Fleet, point: str) -> None:
    """The next playbook run leaves a healthy host with nothing partial on it, and the one after changes nothing."""
    host = "h1"
    request, artefact = request_for(fleet, host)
    stdin = wire.encode_input(
        trapped_program(point), request, artefact.read_tree(f"cp311-{platform.machine()}")
    )
    killed = fleet.ssh(host, f'sudo /usr/bin/python3 -I -S -c "{wire.LOADER}"', stdin=stdin)
    assert killed.returncode != 0, (point, killed.stdout)
    again = fleet.play("deploy", "--limit", host, key=KEY)
    assert again.status == 0, again.output
    assert again.results[host]["health"]["ok"]
    folders = "/etc/ai-client /opt/ai-client /etc/systemd/system /usr/local/share/ca-certificates"
    assert fleet.on(host, f"find {folders} -name '.ai-client-apply*' -o -name pending.json") == ""
    assert fleet.play("deploy", "--limit", host, key=KEY).changed == {host: False}
    assert fleet.play("decommission", "--limit", host, key=KEY).status == 0
