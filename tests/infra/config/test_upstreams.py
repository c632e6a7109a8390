"""`fleet:upstreams`: other providers' accounts, whose keys are secret and whose rest every host may read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ai_client.settings import loads
from infra.config.schema import FleetSettings
from infra.errors import SettingsError
from infra.hosts import fleet
from infra.hosts.inventory import inventory
from infra.hosts.model import Captured
from infra.plan import render
from infra.playbook import requests
from infra.secret_texts import reveal
from infra.state import quota
from tests.infra.stacks import KEY, load, shipped

ROUTER_KEY, NEXT_KEY = "a-router-key/0123", "the-next-router-key"
ROUTER = {
    "baseUrl": "https://openrouter.example/api/v1",
    "models": {"gpt-4.1": "openai/gpt-4.1"},
    "prices": {"gpt-4.1": {"input": 2, "output": 8}},
    "order": 0,
    "apiKey": ROUTER_KEY,
    "apiKeyNext": NEXT_KEY,
}
OWN = {"baseUrl": "http://10.0.0.5:8000/v1", "needsKey": False}


def settings(upstreams: dict[str, Any], **more: Any) -> FleetSettings:
    """The production stack with these."""
    paths = [(name, key) for name, each in upstreams.items() for key in each if key.startswith("apiKey")]
    return load(
        shipped("production") | {"apiKey": KEY, "upstreams": upstreams} | more,
        secret=("apiKey", "upstreams"),
        secret_paths={"fleet:upstreams": tuple(paths)},
    )


def test_hosts_get_the_sections_and_their_keys_apart() -> None:
    """The client reads the configuration that the role renders; the keys go by the run's environment alone."""
    made = settings({"router": ROUTER, "own": OWN})
    built = fleet.build(made)
    group = next(each for each in built.groups if each.nodes)
    request = requests.deploy(made, built, Captured(), group=group.name, nodes=group.nodes[:1])
    assert {ROUTER_KEY, NEXT_KEY} <= set(request.secrets.values())
    text = json.dumps(request.inventory)
    assert ROUTER_KEY not in text
    assert NEXT_KEY not in text
    files = render.files(render.host_variables(request.inventory, group.nodes[0].name))
    read = loads(files["/etc/ai-client/ai-client.conf"], path="conf")
    router, own = sorted(read.upstreams, key=lambda each: each.name, reverse=True)
    assert (router.base_url, router.models, router.order) == (ROUTER["baseUrl"], ROUTER["models"], 0)
    assert str(router.key_file) == "/etc/ai-client/keys/router"
    assert (own.base_url, own.needs_key) == (OWN["baseUrl"], False)
    assert read.model_costs["router/gpt-4.1"].output_usd_per_mtok == 8


def test_keys_reach_the_role_under_their_names() -> None:
    """As the variable of the role, once the run's environment is looked up."""
    made = settings({"router": ROUTER})
    assert reveal(made.vars["ai_upstream_keys"], made.secrets) == {"router": ROUTER_KEY}
    assert reveal(made.vars["ai_upstream_keys_next"], made.secrets) == {"router": NEXT_KEY}


@pytest.mark.parametrize(
    ("upstream", "culprit"),
    [
        ({"baseUrl": "ftp://x"}, "fleet:upstreams.router.baseUrl"),
        ({"baseUrl": "https://x.org"}, "fleet:upstreams.router.apiKey: is missing"),
        ({"baseUrl": "https://x.org", "weigth": 2}, "did you mean 'weight'"),
        ({"baseUrl": "https://x.org", "dialect": "cohere"}, "fleet:upstreams.router.dialect"),
    ],
)
def test_a_wrong_one_is_told(upstream: dict[str, Any], culprit: str) -> None:
    """With its key and remedy."""
    with pytest.raises(SettingsError) as raised:
        settings({"router": upstream})
    assert culprit in str(raised.value)


def test_a_key_in_clear_text_is_refused_without_being_shown() -> None:
    """As the stack's own key is."""
    content = shipped("production") | {"apiKey": KEY, "upstreams": {"router": ROUTER}}
    with pytest.raises(SettingsError) as raised:
        load(content)
    assert "fleet:upstreams.router.apiKey: is stored in clear text" in str(raised.value)
    assert ROUTER_KEY not in str(raised.value)


def test_variables_beside_it_are_refused() -> None:
    """One place says what there is."""
    with pytest.raises(SettingsError) as raised:
        settings({"own": OWN}, vars={"ai_upstreams": {}})
    assert "fleet:vars.ai_upstreams" in str(raised.value)


def test_a_models_limits_are_divided_as_the_account_is() -> None:
    """By share and by hosts; the client reads what comes of it."""
    content = shipped("production") | {"apiKey": KEY}
    granted = {"requestsPerMinute": 1000, "tokensPerDay": 90_000, "burstS": 10, "counts": "estimate"}
    content["account"] = {"rpm": 60_000, "models": {"gpt-4.1": granted, "router": {"requestsPerMinute": 500}}}
    groups = [name for name, group in content["groups"].items() if group.get("hosts")]
    for name in groups:
        content["groups"][name]["share"] = 0.5 if name == groups[0] else 0.5 / (len(groups) - 1)
        for variable in ("ai_rpm", "ai_tpm"):
            content["groups"][name].get("vars", {}).pop(variable, None)
    made = load(content)
    divided = quota.compile_limits(made, fleet.build(made))
    group = next(each for each in divided.groups if each.name == groups[0])
    limits = group.variables["ai_limits"]
    hosts = len(group.nodes)
    assert limits["gpt-4.1"] == {
        "requests_per_minute": 500 // hosts,
        "tokens_per_day": 45_000 // hosts,
        "burst_s": 10,
        "counts": "estimate",
    }
    text = inventory(divided, made.vars, claimed=True)
    files = render.files(render.host_variables(text, group.nodes[0].name))
    read = {each.name: each for each in loads(files["/etc/ai-client/ai-client.conf"], path="conf").limits}
    assert read["gpt-4.1"].requests_per_minute == 500 // hosts
    assert (read["gpt-4.1"].burst_s, read["gpt-4.1"].counts) == (10, "estimate")
    assert read["router"].requests_per_minute == 250 // hosts


@pytest.mark.parametrize(
    ("variables", "key", "is_taken"),
    [
        ({}, "sk-whatever-0123", False),
        ({"ai_base_url": "https://api.holysheep.ai/v1"}, "sk-whatever-0123", False),
        ({"ai_base_url": "https://api.openai.com/v1"}, "sk-whatever-0123", True),
        ({"ai_base_url": "https://api.openai.com/v1"}, "sk with blanks", False),
        ({"ai_base_url": "https://api.openai.com/v1", "ai_key_prefix": "sk-"}, "sk-whatever-0123", True),
        (
            {"ai_base_url": "https://api.openai.com/v1", "ai_key_prefix": "sk-proj-, sk-svc-"},
            "sk-whatever-0",
            False,
        ),
        ({"ai_key_prefix": "sk-"}, "sk-whatever-0123", True),
    ],
)
def test_the_default_key_has_the_form_of_its_provider(
    variables: dict[str, str], key: str, is_taken: bool
) -> None:
    """A prefix is asked for where one is declared, and at HolySheep's address."""
    raw = {**shipped("production"), "apiKey": key}
    raw["vars"] = {**raw.get("vars", {}), **variables}
    if is_taken:
        load(raw, secret=("apiKey",))
        return
    with pytest.raises(SettingsError) as raised:
        load(raw, secret=("apiKey",))
    assert raised.value.culprit == "fleet:apiKey"
    assert "is not a key" in str(raised.value)
    assert key not in str(raised.value)
