"""A run never lets all hosts together send more than was granted: at no moment, whoever is done first."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from infra.config.schema import AccountSettings
from infra.hosts import fleet
from infra.plan.schedule import schedule
from infra.state import turns
from infra.state.last_run import HostLimits, Recorded
from infra.state.quota import compile_limits
from infra.state.turns import Turns
from tests.infra.stacks import load, shipped


def each(group: str, rpm: int, *hosts: str) -> dict[str, HostLimits]:
    return {host: HostLimits(group=group, rpm=rpm, tpm=0) for host in hosts}


def moved(
    before: Mapping[str, HostLimits],
    now: Mapping[str, HostLimits],
    waves: Mapping[str, Sequence[Sequence[str]]],
    rpm: int,
) -> Turns:
    return turns.turns(before, now, waves, AccountSettings(rpm=rpm))


def test_a_group_that_may_send_more_comes_after_those_that_may_send_less() -> None:
    """When shares move: first down, then up."""
    before = each("api", 300, "a1", "a2") | each("batch", 200, "b1", "b2") | each("still", 10, "s1")
    now = each("api", 200, "a1", "a2") | each("batch", 300, "b1", "b2") | each("still", 10, "s1")
    waves = {"api": [["a1"], ["a2"]], "batch": [["b1"], ["b2"]], "still": [["s1"]]}
    assert moved(before, now, waves, 1010) == Turns(falling=frozenset({"api"}), rising=frozenset({"batch"}))


def test_a_new_group_waits_for_what_leaving_hosts_still_use() -> None:
    """A removal comes last in a run: until it is done the removed hosts send what they may."""
    before, now = each("old", 1500, "o1", "o2"), each("new", 3000, "n1")
    found = moved(before, now, {"new": [["n1"]]}, 3000)
    assert found.waiting == {"n1"}
    assert moved({}, now, {"new": [["n1"]]}, 3000).waiting == frozenset()


def test_a_growing_group_lowers_its_hosts_before_the_new_ones_start() -> None:
    """Old hosts come first; where a new one would be first, it waits for the next run."""
    before, now = each("api", 100, "b1", "b2"), each("api", 50, "a1", "b1", "b2", "b3")
    assert moved(before, now, {"api": [["b1"], ["b2"], ["a1", "b3"]]}, 10_000) == Turns(
        rising=frozenset({"api"})
    )
    assert moved(before, now, {"api": [["a1"], ["b1", "b2", "b3"]]}, 10_000).waiting == {"a1", "b3"}


def test_limits_of_a_stack_without_an_account_are_nobodys_quota() -> None:
    """Nothing was granted that could be exceeded."""
    assert turns.turns(each("a", 1, "x"), each("a", 9, "x"), {"a": [["x"]]}, None).held == {}


def test_what_leaves_a_group_is_kept_until_it_is_gone() -> None:
    """The share of a group is not passed either, though the account has room."""
    config = shipped("production") | {"account": {"rpm": 3000}}
    config["groups"]["ai_batch_workers"]["share"] = 0.3
    del config["groups"]["ai_batch_workers"]["hosts"]["batch-worker-02"]
    settings = load(config)
    built = compile_limits(settings, fleet.build(settings))
    names = [f"batch-worker-0{n}" for n in (1, 2)]

    def rpm(last: dict[str, HostLimits]) -> tuple[Any, Any]:
        known = each("ai_api_clients", 60, *config["groups"]["ai_api_clients"]["hosts"])
        found = schedule(
            settings, built, Recorded(limits=known | last, waves={"ai_batch_workers": ((names[0],),)})
        )
        group = next(group for group in found.fleet.groups if group.name == "ai_batch_workers")
        return group.variables["ai_rpm"], sorted(found.turns.held)

    assert rpm(each("ai_batch_workers", 450, *names)) == (450, names[:1])
    assert rpm(each("ai_batch_workers", 450, names[0])) == (900, [])


HOSTS = ("a1", "a2", "a3", "b1", "b2", "c1")
RATES = st.dictionaries(st.sampled_from(HOSTS), st.integers(1, 50), max_size=len(HOSTS))


@st.composite
def orders(draw: st.DrawFn, hosts: Sequence[str]) -> dict[str, list[list[str]]]:
    """Each group's hosts in some order, cut into waves."""
    found: dict[str, list[list[str]]] = {}
    for group in "abc":
        members = draw(st.permutations([host for host in hosts if host.startswith(group)]))
        waves: list[list[str]] = []
        for host in members:
            if waves and draw(st.booleans()):
                waves[-1].append(host)
            else:
                waves.append([host])
        if waves:
            found[group] = waves
    return found


def played(
    data: st.DataObject,
    found: Turns,
    waves: Mapping[str, Sequence[Sequence[str]]],
    had: Mapping[str, int],
    gets: Mapping[str, int],
) -> Iterator[dict[str, int]]:
    """What each host may send after each step of a run."""
    sends = dict(had)
    left = {
        group: [[host for host in wave if host not in found.waiting] for wave in order]
        for group, order in waves.items()
    }
    while True:
        left = {group: kept for group, order in left.items() if (kept := [wave for wave in order if wave])}
        ready = [g for g in sorted(left) if g not in found.rising or not found.falling & set(left)]
        if not ready:
            return
        wave = left[data.draw(st.sampled_from(ready))][0]
        host = wave.pop(data.draw(st.integers(0, len(wave) - 1)))
        sends[host] = gets[host]
        yield sends


@given(st.data(), RATES, RATES)
def test_whatever_is_done_first_the_account_is_kept_to(
    data: st.DataObject, had: dict[str, int], gets: dict[str, int]
) -> None:
    """A run is played step by step: any group that may go on goes on, and any host of its wave is done next."""
    account = max(sum(had.values()), sum(gets.values()), 1)
    before = {host: HostLimits(group=host[0], rpm=rpm, tpm=0) for host, rpm in had.items()}
    now = {host: HostLimits(group=host[0], rpm=rpm, tpm=0) for host, rpm in gets.items()}
    waves = data.draw(orders(sorted(gets)))
    found = moved(before, now, waves, account)
    kept = {host: limits.rpm for host, limits in found.held.items()}
    for sends in played(data, found, waves, had, {**gets, **kept}):
        assert sum(sends.values()) <= account


@given(st.data(), RATES)
def test_with_nothing_in_the_way_every_limit_is_reached(data: st.DataObject, gets: dict[str, int]) -> None:
    """A first run, and one whose hosts have their limits already, hold nobody back."""
    now = {host: HostLimits(group=host[0], rpm=rpm, tpm=0) for host, rpm in gets.items()}
    waves = data.draw(orders(sorted(gets)))
    for before in ({}, now):
        found = moved(before, now, waves, max(sum(gets.values()), 1))
        assert (found.held, found.waiting) == ({}, frozenset())


def of_model(group: str, amounts: Mapping[str, int], *, burst_s: int = 10) -> dict[str, HostLimits]:
    """Hosts of one group with a limit of one model each; their own limits stay as they are."""
    return {
        host: HostLimits(
            group=group, rpm=10, tpm=0, models={"gpt": {"tokens_per_minute": amount, "burst_s": burst_s}}
        )
        for host, amount in amounts.items()
    }


def test_a_models_limit_falls_before_it_rises_elsewhere() -> None:
    """As the hosts' own limits do, which need not move with it."""
    before = of_model("api", {"a1": 60}) | of_model("batch", {"b1": 40})
    now = of_model("api", {"a1": 40}) | of_model("batch", {"b1": 60})
    account = AccountSettings.model_validate({"rpm": 100, "models": {"gpt": {"tokensPerMinute": 100}}})
    waves = {"api": [["a1"]], "batch": [["b1"]]}
    assert turns.turns(before, now, waves, account) == Turns(
        falling=frozenset({"api"}), rising=frozenset({"batch"})
    )


def test_a_model_limit_that_others_still_use_is_kept_on_the_host() -> None:
    """The group that has to give it up is not reached; what is no amount is as declared."""
    config = shipped("production") | {
        "account": {"rpm": 3000, "models": {"gpt": {"tokensPerMinute": 1000, "burstS": 10}}},
    }
    config["groups"]["ai_batch_workers"]["share"] = 0.3
    settings = load(config)
    built = compile_limits(settings, fleet.build(settings))
    batch = [node.name for group in built.groups if group.name == "ai_batch_workers" for node in group.nodes]
    declared = next(g for g in built.groups if g.name == "ai_batch_workers").variables
    gone = of_model("gone", {"x1": 1000 - 40 * len(batch)})
    had = {
        host: HostLimits(
            group="ai_batch_workers", rpm=declared["ai_rpm"], tpm=0, models={"gpt": {"tokens_per_minute": 40}}
        )
        for host in batch
    }
    last = Recorded(limits=had | gone, waves={"ai_batch_workers": (tuple(batch),)})
    found = schedule(settings, built, last)
    group = next(group for group in found.fleet.groups if group.name == "ai_batch_workers")
    assert declared["ai_limits"]["gpt"]["tokens_per_minute"] > 40
    assert group.variables["ai_limits"] == {"gpt": {"tokens_per_minute": 40, "burst_s": 10}}


@given(st.data(), RATES, RATES)
def test_whatever_is_done_first_a_models_grant_is_kept_to(
    data: st.DataObject, had: dict[str, int], gets: dict[str, int]
) -> None:
    """The same run, played for the limit of one model."""
    most = max(sum(had.values()), sum(gets.values()), 1)
    account = AccountSettings.model_validate({"rpm": 10_000, "models": {"gpt": {"tokensPerMinute": most}}})
    before = {host: of_model(host[0], {host: amount})[host] for host, amount in had.items()}
    now = {host: of_model(host[0], {host: amount})[host] for host, amount in gets.items()}
    waves = data.draw(orders(sorted(gets)))
    found = turns.turns(before, now, waves, account)
    kept = {host: limits.models["gpt"]["tokens_per_minute"] for host, limits in found.held.items()}
    for sends in played(data, found, waves, had, {**gets, **kept}):
        assert sum(sends.values()) <= most
