"""`fleet:coordination`: one quota for all hosts, over an engine whose password is secret."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ai_client.settings import loads
from infra.config.schema import FleetSettings
from infra.errors import SettingsError
from infra.hosts import fleet, house_rules
from infra.hosts.model import Captured
from infra.plan import render
from infra.playbook import requests
from infra.secret_texts import reveal
from infra.state import quota
from tests.infra.stacks import KEY, load, shipped

PASSWORD = "a-password-of-the-engine"
ENGINE = {"endpoint": "rediss://engine.internal:6380/2", "user": "fleet", "password": PASSWORD}
LIMITS = {"ai_rpm": 100}


def settings(
    coordination: dict[str, Any] | None, *, rpm: int = 1000, secret: bool = True, **more: Any
) -> FleetSettings:
    """The production stack, whose quota is shared."""
    content = shipped("production") | {"apiKey": KEY, "vars": LIMITS, "account": {"rpm": rpm}} | more
    if coordination is not None:
        content["coordination"] = coordination
    is_secret = secret and coordination is not None and "password" in coordination
    return load(
        {name: value for name, value in content.items() if value is not None},
        secret=("apiKey", *(["coordination"] if is_secret else [])),
        secret_paths={"fleet:coordination": (("password",),)} if is_secret else {},
    )


def checked(**variables: Any) -> None:
    """The house's rules on the production stack with these variables."""
    made = settings(ENGINE, vars={**LIMITS, **variables})
    house_rules.check(made, quota.compile_limits(made, fleet.build(made)))


def test_hosts_get_the_section_and_the_password_apart() -> None:
    """The client reads what the role renders; the password goes by the run's environment alone."""
    made = settings(ENGINE)
    built = fleet.build(made)
    group = next(each for each in built.groups if each.nodes)
    request = requests.deploy(made, built, Captured(), group=group.name, nodes=group.nodes[:1])
    assert PASSWORD in request.secrets.values()
    assert PASSWORD not in json.dumps(request.inventory)
    host = group.nodes[0].name
    files = render.files(render.host_variables(request.inventory, host))
    read = loads(files["/etc/ai-client/ai-client.conf"], path="conf").coordination
    assert (read.endpoint, read.user, read.account) == (ENGINE["endpoint"], "fleet", "production")
    assert str(read.password_file) == "/etc/ai-client/coordination"
    assert read.host == host
    assert reveal(made.vars["ai_coordination_password"], made.secrets) == PASSWORD


def test_budgets_are_shared_by_a_word_beside_the_engine() -> None:
    """Hosts that share none get no new line."""
    for shared in (True, False):
        made = settings({**ENGINE, "sharedBudgets": shared})
        built = fleet.build(made)
        group = next(each for each in built.groups if each.nodes)
        request = requests.deploy(made, built, Captured(), group=group.name, nodes=group.nodes[:1])
        files = render.files(render.host_variables(request.inventory, group.nodes[0].name))
        text = files["/etc/ai-client/ai-client.conf"]
        assert loads(text, path="conf").budget.shared is shared
        assert ("shared = true" in text) is shared


def test_budgets_that_can_t_be_shared_are_told() -> None:
    """Before any host is asked."""
    with pytest.raises(SettingsError, match="ai_budget_shared: needs an engine"):
        settings(None, vars={**LIMITS, "ai_budget_shared": True})
    with pytest.raises(SettingsError, match="sharedBudgets: is of no use"):
        settings({**ENGINE, "sharedBudgets": True}, vars={**LIMITS, "ai_budget_hard_stop": False})


def test_it_is_off_by_default() -> None:
    made = settings(None)
    built = fleet.build(made)
    group = next(each for each in built.groups if each.nodes)
    request = requests.deploy(made, built, Captured(), group=group.name, nodes=group.nodes[:1])
    files = render.files(render.host_variables(request.inventory, group.nodes[0].name))
    assert "coordination" not in files["/etc/ai-client/ai-client.conf"]


@pytest.mark.parametrize(
    ("coordination", "told"),
    [
        ({"endpoint": "http://engine"}, "fleet:coordination.endpoint"),
        ({"endpoint": "rediss://me:word@engine"}, "fleet:coordination.endpoint"),
        ({"endpoint": "rediss://engine", "user": "fleet"}, "fleet:coordination.password: is missing"),
        ({"endpoint": "rediss://engine", "password": PASSWORD}, "fleet:coordination.user: is missing"),
        ({"endpoint": "rediss://engine", "usr": "fleet"}, "did you mean 'user'"),
    ],
)
def test_a_wrong_one_is_told(coordination: dict[str, Any], told: str) -> None:
    """With its key and remedy."""
    with pytest.raises(SettingsError) as raised:
        settings(coordination)
    assert told in str(raised.value)


def test_a_password_in_clear_text_is_refused_without_being_shown() -> None:
    with pytest.raises(SettingsError) as raised:
        settings(ENGINE, secret=False)
    assert "fleet:coordination.password: is stored in clear text" in str(raised.value)
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"account": None}, "fleet:coordination: shares a quota that is not declared"),
        ({"vars": {"ai_coordination_endpoint": "rediss://x"}}, "fleet:vars.ai_coordination_endpoint"),
    ],
)
def test_what_contradicts_it_is_refused(more: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError) as raised:
        settings(ENGINE, **more)
    assert told in str(raised.value)


def test_a_share_that_is_all_floor_is_refused() -> None:
    """It has nothing to lend, and what it may never lend is a good part of the quota."""
    with pytest.raises(SettingsError, match="its floor and never lent"):
        checked(ai_rpm=1)


def test_hosts_share_tokens_all_or_none() -> None:
    """One without a limit would send what others were lent."""
    made = settings(ENGINE, vars={"ai_rpm": 10})
    content = made.model_dump()
    content["groups"]["ai_api_clients"]["vars"]["ai_tpm"] = 50_000
    changed = made.model_copy(
        update={
            "groups": {
                name: group.model_copy(update={"vars": {**group.vars, "ai_tpm": 50_000}})
                if name == "ai_api_clients"
                else group
                for name, group in made.groups.items()
            }
        }
    )
    with pytest.raises(SettingsError, match="has no limit on tokens"):
        house_rules.check(changed, fleet.build(changed))


def test_an_engine_without_tls_is_refused_outside_of_development() -> None:
    """Whoever reads the password can change the quota."""
    made = settings({**ENGINE, "endpoint": "redis://engine.internal"})
    with pytest.raises(SettingsError, match="rediss://"):
        house_rules.check(made, fleet.build(made))
