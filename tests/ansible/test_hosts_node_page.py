"""The commands of the page for a host's operator, typed on a real batch host."""

from __future__ import annotations

import json
import re
import time

import pytest

from tests.ansible.real_fleet import ROOT, Fleet

pytestmark = [pytest.mark.hosts, pytest.mark.slow]

KEY = "hs_test_operators_page"
PAGE = ROOT / "docs" / "how-to" / "node.md"
HOST = "h2"
SPOOL_S = 60.0
DONE = "/var/cache/ai-client/spool/done/requests"


def test_the_commands_of_the_page_do_what_it_says(fleet: Fleet) -> None:
    """In one shell, each must succeed; a batch is answered by hand and from the spool, and the ledger shows it."""
    variables = {"ai_batch_mode": True, "ai_rpm": 6000}
    # The page is about a host with one life; other tests' services have told this one's journal anchors of theirs.
    fleet.on(HOST, "journalctl --quiet --rotate; journalctl --quiet --vacuum-time=1s")
    try:
        deployed = fleet.play("deploy", "--limit", HOST, key=KEY, variables=variables)
        assert deployed.status == 0, deployed.output
        blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        assert len(blocks) == 6
        typed = fleet.ssh(HOST, "sudo bash -eu -o pipefail", stdin="\n".join(blocks).encode())
        said = typed.stdout.decode()
        assert typed.returncode == 0, said + typed.stderr.decode()
        assert "2 answered, 0 failed" in said
        assert "as it was written" in said
        check_spool(fleet)
    finally:
        assert fleet.play("decommission", "--limit", HOST, key=KEY).status == 0


def check_spool(fleet: Fleet) -> None:
    """The file that was put in is worked through, and its answers lie where the page says."""
    end_s = time.monotonic() + SPOOL_S
    while fleet.ssh(HOST, f"sudo test -e {DONE}/input.jsonl").returncode != 0:
        assert time.monotonic() < end_s, fleet.on(HOST, "find /var/cache/ai-client/spool")
    answers = [json.loads(line) for line in fleet.on(HOST, f"cat {DONE}/output.jsonl").splitlines()]
    assert {answer["custom_id"] for answer in answers} == {"one", "two"}
    assert all(answer["response"]["status_code"] == 200 for answer in answers)
