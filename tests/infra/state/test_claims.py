"""Whose a host is, and what leaves: counted by machines that will be cleaned up, not by names."""

import json
from typing import Any

import pytest

from infra.errors import RemovalError
from infra.hosts import ec2, fleet
from infra.hosts.model import Captured, Fleet
from infra.state import claims
from infra.state.last_run import Claimed, HostLimits, Recorded, from_resources
from tests.infra.stacks import HOST_KEY, load, shipped

OTHER_KEY = HOST_KEY.replace("AAAAC3", "BBBBC3")


def held(declared: Fleet, **changes: Claimed) -> dict[str, Claimed]:
    """The claims of a state that was brought up with this fleet."""
    recorded = {
        name: Claimed(
            claim=declared.claim(node.name),
            address=node.address,
            instance={"id": node.instance.id} if node.instance else {},
            host_keys=frozenset(node.host_keys),
        )
        for node in declared.targets
        for name in [claims.resource_names(declared, {}, {})[node.name]]
    }
    return recorded | changes


def declared_without(*names: str, **hosts: Any) -> Fleet:
    """The production fleet without some of its hosts, and with others as they are given."""
    config = shipped("production")
    group = config["groups"]["ai_api_clients"]["hosts"]
    for name in names:
        del group[name]
    group.update({name.replace("_", "-"): host for name, host in hosts.items()})
    return fleet.build(load(config))


def leaving(recorded: dict[str, Claimed], declared: Fleet, **same: bool) -> dict[str, Claimed]:
    told = claims.sameness(declared, Captured(), recorded) | {n.replace("_", "-"): v for n, v in same.items()}
    return claims.leaving(recorded, claims.resource_names(declared, recorded, told), declared)


WHOLE = declared_without()


def test_as_many_removals_as_are_allowed_go_through() -> None:
    """What is allowed is allowed; hosts that are new do not count."""
    claims.check(leaving(held(WHOLE), WHOLE), allowed=0)
    claims.check(leaving({}, WHOLE), allowed=0)
    claims.check(leaving(held(WHOLE), declared_without("web-prod-01")), allowed=1)
    claims.check(leaving(held(WHOLE), declared_without("web-prod-01", "web-prod-02")), allowed=2)


def test_more_removals_are_refused_with_the_hosts_and_the_way_out() -> None:
    """The error names every host that would go, and the setting that lets them."""
    with pytest.raises(RemovalError) as raised:
        claims.check(leaving(held(WHOLE), declared_without("web-prod-01", "web-prod-02")), allowed=1)
    assert str(raised.value) == (
        "fleet:maxRemovals: 2 hosts would be removed (web-prod-01, web-prod-02), but only 1 may be; "
        "correct the stack's file, or allow it with 'pulumi config set maxRemovals 2'"
    )


def test_a_long_list_is_cut() -> None:
    """Hundreds of names help nobody."""
    recorded = {f"claim-{n}": Claimed(claim=f"fleet/production/gone-{n:03}") for n in range(300)}
    with pytest.raises(RemovalError, match=r"300 hosts would be removed \(gone-000, .*, gone-009 …\)"):
        claims.check(claims.ending(recorded, {}), allowed=1)


def instances(region: str, start: int) -> dict[str, tuple[ec2.Instance, ...]]:
    return {
        "web": tuple(
            ec2.Instance(
                id=f"i-{region}-{n}",
                account="1",
                region=region,
                state="running",
                address=f"10.{start}.0.{n}",
                zone="a",
                tags={"Name": f"web-{n}"},
            )
            for n in range(1, 31)
        )
    }


def test_instances_replaced_under_the_same_names_are_counted() -> None:
    """A wrong region or VPC whose instances have the same names would decommission the whole old fleet."""
    group = {"source": "ec2", "ec2": {"filters": {"tag:Role": ["web"]}}}
    settings = load({"environment": "production", "groups": {"web": group}})
    old, new = (fleet.build(settings, instances(*place)) for place in (("eu", 0), ("us", 1)))
    gone = leaving(held(old), new)
    with pytest.raises(RemovalError, match="30 hosts would be removed"):
        claims.check(gone, allowed=1)
    claims.check(
        gone, allowed=1, is_gone=lambda claim: claim.instance["id"] != "i-eu-7"
    )  # terminated, but for one
    assert leaving(held(old), old) == {}


MOVED = {"address": "10.0.9.99"}


def test_a_host_at_another_address_is_the_same_machine_where_its_key_is() -> None:
    """It keeps its claim; nothing is cleaned up."""
    before = declared_without(web_prod_01={"address": "10.0.1.11", "hostKeys": [HOST_KEY]})
    after = declared_without(web_prod_01=MOVED | {"hostKeys": [HOST_KEY]})
    recorded = held(before)
    assert claims.resource_names(after, recorded, {})["web-prod-01"] == "claim-web-prod-01"
    assert leaving(recorded, after) == {}


def test_another_machine_under_the_same_name_leaves_the_old_one_to_be_cleaned_up() -> None:
    """The old machine is counted, and cleaned up where it was; the new one has a claim of its own from then on."""
    before = declared_without(web_prod_01={"address": "10.0.1.11", "hostKeys": [HOST_KEY]})
    after = declared_without(web_prod_01=MOVED | {"hostKeys": [OTHER_KEY]})
    recorded = held(before)
    gone = leaving(recorded, after)
    assert [(name, claim.address) for name, claim in gone.items()] == [("claim-web-prod-01", "10.0.1.11")]
    with pytest.raises(RemovalError):
        claims.check(gone, allowed=0)
    same = claims.sameness(after, Captured(), recorded)
    names = claims.resource_names(after, recorded, same)
    assert names["web-prod-01"].startswith("claim-web-prod-01-")
    later = {names["web-prod-01"]: Claimed(claim="fleet/production/web-prod-01", address="10.0.9.99")}
    assert claims.resource_names(after, later, {}) == claims.resource_names(after, {}, {}) | names


def test_a_machine_under_another_name_goes_on() -> None:
    """It is no removal: its limits are those that it had, and the new name's run takes it over."""
    recorded = held(WHOLE)
    after = declared_without("web-prod-01", renamed={"address": "10.0.1.11"})
    names = claims.resource_names(after, recorded, {})
    assert leaving(recorded, after) == {}
    assert list(claims.ending(recorded, names)) == ["claim-web-prod-01"]
    renamed = claims.new_names(recorded, names, after)
    assert renamed == {"claim-web-prod-01": "renamed"}
    limits = {"web-prod-01": HostLimits(group="g", rpm=1, tpm=2)}
    last = Recorded(claims=recorded, limits=limits, waves={"g": (("web-prod-01", "x"),)})
    found = claims.under_new_names(last, renamed)
    assert found.limits == {"renamed": limits["web-prod-01"]}
    assert found.waves == {"g": (("renamed", "x"),)}


def test_where_keys_do_not_tell_the_hosts_marker_does() -> None:
    """A certificate authority certifies every host: what the probe found on the host decides."""
    after = declared_without(web_prod_01=MOVED)
    assert leaving(held(WHOLE), after, web_prod_01=True) == {}
    assert list(leaving(held(WHOLE), after, web_prod_01=False)) == ["claim-web-prod-01"]


def test_a_new_state_has_a_lineage_and_an_old_one_keeps_its_owner() -> None:
    """Two states of one name never own one host; a renamed stack keeps its hosts; others are taken over on demand."""
    first, second = (claims.owner("live", [], declared=None, seeds=[seed]) for seed in ("here", "there"))
    assert first.startswith("fleet/live@")
    assert first != second
    recorded = [Claimed(claim=f"{first}/web-{n}") for n in (1, 2)]
    assert claims.owner("renamed", recorded, declared=None, seeds=["x"]) == first
    assert (
        claims.owner("live", [Claimed(claim="fleet/live/web-1")], declared=None, seeds=["x"]) == "fleet/live"
    )
    assert claims.owner("live", recorded, declared="fleet/lost@1", seeds=["x"]) == "fleet/lost@1"


def test_claims_are_read_with_machine_and_keys() -> None:
    """From what the state holds of the request to clean up."""
    request = {"instance": {"id": "i-1"}, "known_hosts": f"bastion {OTHER_KEY}\nweb {HOST_KEY}\n"}
    inputs = {
        "environment": {"CLAIM": "fleet/live@1/web", "ADDRESS": "10.0.0.1"},
        "stdin": json.dumps(request),
    }
    state = {"urn:x::claim-web-i-1": {"type": "command:local:Command", "outputs": inputs}}
    (claim,) = from_resources(state).claims.values()
    assert (claim.host, claim.owner, claim.instance, claim.host_keys) == (
        "web",
        "fleet/live@1",
        {"id": "i-1"},
        {HOST_KEY},
    )
