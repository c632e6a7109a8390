import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import SettingsError
from infra.hosts import fleet
from infra.state.quota import compile_limits
from tests.infra.stacks import load, shipped


def limits(
    api_share: float | None, batch_share: float | None, account: dict[str, int] | None
) -> dict[str, object]:
    """Each group's limits for two shares; five hosts are in the one group, two in the other."""
    config = shipped("production")
    config |= {"account": account} if account else {}
    for group, share in (("ai_api_clients", api_share), ("ai_batch_workers", batch_share)):
        if share is not None:
            config["groups"][group]["share"] = share
    settings = load(config)
    compiled = compile_limits(settings, fleet.build(settings))
    return {
        group.name: tuple(group.variables.get(name) for name in ("ai_rpm", "ai_tpm"))
        for group in compiled.groups
    }


def test_a_share_is_divided_among_the_hosts_of_its_group() -> None:
    """Account x share / hosts, rounded down: the hosts together never exceed the share."""
    found = limits(0.7, 0.3, {"rpm": 3000, "tpm": 1_000_000})
    assert found["ai_api_clients"] == (420, 140_000)
    assert found["ai_batch_workers"] == (450, 150_000)


def test_a_group_without_a_share_keeps_its_own_limits() -> None:
    """The quota compiler touches just the groups that ask for it."""
    assert limits(0.5, None, {"rpm": 3000})["ai_batch_workers"] == (None, None)


def test_shares_above_the_whole_are_refused_with_the_sum() -> None:
    """The arithmetic is shown."""
    with pytest.raises(
        SettingsError, match=r"ai_api_clients 0.7 \+ ai_batch_workers 0.4; of 3000 .* that is 3300"
    ):
        limits(0.7, 0.4, {"rpm": 3000})


def test_a_share_too_small_for_one_request_a_host_is_refused_with_the_division() -> None:
    """A host that may never send is a mistake, not a limit."""
    with pytest.raises(SettingsError, match=r"100 rpm x 0.01 / 2 hosts = 0.5 rpm a host, less than one"):
        limits(None, 0.01, {"rpm": 100})


def test_a_share_without_an_account_is_refused() -> None:
    """There is nothing to share."""
    with pytest.raises(
        SettingsError,
        match=r"ai_batch_workers.share: is a share, but there is no account to share; declare fleet:account",
    ):
        limits(None, 0.5, None)


def test_a_share_beside_a_limit_is_refused() -> None:
    """Two sources of one limit contradict each other."""
    config = shipped("production") | {"account": {"rpm": 3000}}
    config["groups"]["ai_batch_workers"] |= {"share": 0.5}
    config["groups"]["ai_batch_workers"]["vars"]["ai_rpm"] = 10
    settings = load(config)
    with pytest.raises(SettingsError, match=r"vars.ai_rpm: is set beside a share"):
        compile_limits(settings, fleet.build(settings))


@given(st.integers(1000, 10**7), st.integers(1, 100))
def test_the_hosts_of_all_groups_together_never_exceed_the_account(rpm: int, percent: int) -> None:
    """For any account and any division of it in whole percents."""
    share = percent / 100
    found = limits(share, 1 - share if percent < 100 else None, {"rpm": rpm})
    api, batch = found["ai_api_clients"], found["ai_batch_workers"]
    total = 5 * int(api[0]) + 2 * int(batch[0] or 0)
    assert rpm - 7 - 7 < total <= rpm
