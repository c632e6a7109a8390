import pytest

from infra import fleet, removals
from infra.errors import RemovalError
from tests.infra.stacks import load, shipped

OWNED = [f"fleet/production/{name}" for name in ("web-prod-01", "web-prod-02", "web-prod-03", "api-prod-01")]


def declared_without(*names: str) -> fleet.Fleet:
    """The production fleet without some of its hosts."""
    config = shipped("production")
    for name in names:
        del config["groups"]["ai_api_clients"]["hosts"][name]
    return fleet.build(load(config))


def test_as_many_removals_as_are_allowed_go_through() -> None:
    """What is allowed is allowed; hosts that are new do not count."""
    removals.check(OWNED, declared_without(), allowed=0)
    removals.check(OWNED, declared_without("web-prod-01"), allowed=1)
    removals.check(OWNED, declared_without("web-prod-01", "web-prod-02"), allowed=2)


def test_more_removals_are_refused_with_the_hosts_and_the_way_out() -> None:
    """The error names every host that would go, and the setting that lets them."""
    with pytest.raises(RemovalError) as raised:
        removals.check(OWNED, declared_without("web-prod-01", "web-prod-02"), allowed=1)
    assert str(raised.value) == (
        "fleet:maxRemovals: 2 hosts would be removed (web-prod-01, web-prod-02) and 1 may be; "
        "correct the stack's file, or allow it with 'pulumi config set maxRemovals 2'"
    )


def test_a_stack_without_state_removes_nothing() -> None:
    """Before the first run the stack owns no host."""
    removals.check([], declared_without(), allowed=0)


def test_a_long_list_is_cut() -> None:
    """Hundreds of names help nobody."""
    owned = [f"fleet/production/gone-{number:03}" for number in range(300)]
    with pytest.raises(RemovalError, match=r"300 hosts would be removed \(gone-000, .*, gone-009 …\)"):
        removals.check(owned, declared_without(), allowed=1)
