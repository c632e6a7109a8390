"""Who may take a host over, and who may take it down."""

from __future__ import annotations

import json

import pytest

from tests.ansible.folder_host import Rig, Wanted

GUARDED = {"needs_consent": True}
CLAIM = "fleet/test/host-01"


def claim(lineage: str) -> dict[str, object]:
    return {"claim": {"name": CLAIM, "owner": "fleet/test", "lineage": lineage}}


@pytest.mark.parametrize("mode", ["decommission", "collect"])
@pytest.mark.parametrize("consent", ["", "fleet/test/host-02"])
def test_a_guarded_host_is_not_taken_down_without_its_consent(rig: Rig, mode: str, consent: str) -> None:
    """Whatever engine verb asks for it: the service runs on, and the message says how it is meant."""
    rig.ask(Wanted(more=GUARDED))
    before = rig.files()
    answer = rig.ask(Wanted(mode=mode, more={"consent": consent}))
    assert answer.failed
    assert CLAIM in answer.message
    assert "ai_consent" in answer.message
    assert rig.files() == before
    assert "ai-client.service" in rig.host.state["running"]


def test_consent_that_names_the_claim_lets_it_go(rig: Rig) -> None:
    """Its files are handed out and removed."""
    before = rig.files()
    rig.ask(Wanted(more=GUARDED))
    for mode in ("collect", "decommission"):
        assert not rig.ask(Wanted(mode=mode, more={"consent": CLAIM})).failed
    assert rig.files() == before


def test_a_host_without_the_guard_goes_as_before(rig: Rig) -> None:
    """Hosts that the stack boots itself, hosts of hand-run playbooks, and requests of earlier programs."""
    rig.ask(Wanted())
    assert not rig.ask(Wanted(mode="decommission")).failed
    rig.ask(Wanted(more=GUARDED))
    rig.ask(Wanted())
    assert not rig.ask(Wanted(mode="decommission")).failed


def test_two_states_of_one_name_do_not_own_one_host(rig: Rig) -> None:
    """Two administrators, two local backends, one stack's name: the second is refused, in either direction."""
    rig.ask(Wanted(more=claim("one-state")))
    before = rig.files()
    for mode in ("apply", "decommission", "collect", "rollback"):
        answer = rig.ask(Wanted(mode=mode, more=claim("other-state"), config="[api]\n"))
        assert answer.failed
        assert "another state of fleet/test" in answer.message
    assert rig.files() == before
    assert not rig.ask(Wanted(mode="decommission", more=claim("one-state"))).failed


def test_a_claim_without_a_lineage_is_told_by_its_name(rig: Rig) -> None:
    """Hosts and orders from before lineages: the next run writes it down, an old order still cleans up."""
    rig.ask(Wanted())
    assert not rig.ask(Wanted(more=claim("mine"))).failed
    assert json.loads(rig.path("/etc/ai-client/claim.json").read_text())["lineage"] == "mine"
    assert not rig.ask(Wanted()).changed
    assert not rig.ask(Wanted(mode="decommission")).failed


@pytest.mark.parametrize("named", ["fleet/old", "old-state"])
def test_hosts_are_taken_over_by_naming_their_owner(rig: Rig, named: str) -> None:
    """A renamed stack, or a state that was lost: the service runs on, and the old owner has no say any more."""
    old = {"claim": {"name": "fleet/old/host-01", "owner": "fleet/old", "lineage": "old-state"}}
    rig.ask(Wanted(more=old))
    commands = rig.host.state["commands"]
    refused = rig.ask(Wanted())
    assert refused.failed
    assert "ai_take_over" in refused.message
    answer = rig.ask(Wanted(more={**claim("new-state"), "takes_over": named}))
    assert [change.path for change in answer.changes] == ["/etc/ai-client/claim.json"]
    assert rig.host.state["commands"] == commands
    assert rig.ask(Wanted(mode="decommission", more=old)).failed
