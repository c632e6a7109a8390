"""What the program takes of a variable is what the client takes of the file that the role makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from applier.on_controller.errors import DeliveryError
from applier.on_controller.rendering import load_templates, render_config
from applier.on_controller.variables import SECRETS

from ai_client.settings import loads
from ai_client.settings.load import ConfigError
from infra.config.checks import variables as wrong_variables
from infra.hosts.contradictions import contradictions
from infra.project_files import ROLE, role_defaults, role_variables

TEMPLATES = load_templates(ROLE / "templates")
#: Makes the template write every section.
EVERY_SECTION: dict[str, Any] = {
    "ai_coordination_endpoint": "rediss://engine:6379",
    "ai_traces_otlp_endpoint": "http://127.0.0.1:4318/v1/traces",
    "ai_dialect": "azure",
    "ai_api_version": "2025-04-01-preview",
}
#: Never in the client's file, or checked where they are declared (`fleet:upstreams`).
ELSEWHERE = {
    *SECRETS,
    "ai_coordination_password",
    "ai_upstreams",
    "ai_limits",
    "ai_tenants",
    "ai_model_costs",
}
NUMBERS = (-1, 0, 0.5, 1, 20, 21, 100, 101, 1024, 1025, 3650, 3651, 65_535, 65_536, 86_400, 86_401)
LARGE = (
    100_000,
    100_001,
    10**8,
    10**8 + 1,
    10**9,
    10**9 + 1,
    31_536_000,
    31_536_001,
    10**11,
    10**11 + 1,
    10**15,
)
TEXTS = (
    *(
        "nonsense",
        "with blanks",
        "§",
        "relative/path",
        "/absolute",
        "UTC",
        "Mars/Base",
        "a" * 64,
        "debug",
        "INFO",
    ),
    *(
        "http://",
        "https://host",
        "http://host:0",
        "http://host/v1?x=1",
        "ftp://host",
        "http://[::1",
        "HTTP://HOST",
    ),
    *("socks5://host:1", "redis://host", "rediss://user:word@host", "gpt-4.1", "-x", "allow", "openai"),
)
PROBES = {
    "int": [n for n in (*NUMBERS, *LARGE) if isinstance(n, int)],
    "float": [*NUMBERS, *LARGE, float("nan"), float("inf")],
    "str": list(TEXTS),
    "path": list(TEXTS),
    "list": [["gpt-4.1", "§"], ["/v1/conversations"], ["conversations"], [""], []],
}


def probes() -> Iterator[tuple[str, Any]]:
    """Every variable that goes into the client's file, with values within and out of its bounds."""
    for name, spec in role_variables().items():
        if name not in ELSEWHERE:
            yield from ((name, value) for value in PROBES.get(str(spec.get("type", "str")), ()))


def is_taken_by_the_client(name: str, value: Any) -> bool:
    """Whether the file that the role makes of it is read."""
    usual = {n: v for n, v in role_defaults().items() if n not in SECRETS}
    try:
        loads(render_config(TEMPLATES, {**usual, **EVERY_SECTION, name: value}), path="rendered")
    except (ConfigError, DeliveryError, ValueError, OverflowError):
        return False
    return True


def is_taken_by_the_program(name: str, value: Any) -> bool:
    """Whether the stack's settings take it, alone and beside the role's defaults."""
    own = {name: value}
    return not [*wrong_variables([("fleet:vars", own)], role_variables()), *contradictions(own)]


def test_what_the_client_refuses_is_refused_in_the_stacks_file() -> None:
    """Every variable, whatever it is: a preview never shows a value that the service won't start with."""
    refused = {(name, str(value)) for name, value in probes() if not is_taken_by_the_client(name, value)}
    assert len(refused) > 300
    taken = {(name, str(value)) for name, value in probes() if is_taken_by_the_program(name, value)}
    assert sorted(refused & taken) == []


@pytest.mark.parametrize("name", ["ai_timeout", "ai_gateway_port", "ai_budget_daily_usd", "ai_base_url"])
def test_what_the_client_takes_is_taken(name: str) -> None:
    """No bound is narrower than the client's own."""
    values = PROBES[str(role_variables()[name]["type"])]
    taken = [value for value in values if is_taken_by_the_client(name, value)]
    assert taken
    assert [value for value in taken if not is_taken_by_the_program(name, value)] == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "ai_log_level",
            "inof",
            "fleet:vars.ai_log_level: is 'inof', which is not one of its values; did you mean 'INFO'?",
        ),
        ("ai_python", "hots", "did you mean 'host'?"),
        ("ai_gateway_port", 99_999, "is 99999, which is out of bounds; write a number from 0 to 65535"),
        ("ai_gate_error_share", 2, "write a number from 0 to 1"),
        ("ai_health_deadline", 0, "write a number above 0"),
        ("ai_enable_metrics", "yes", "is a text, not true or false; write true or false"),
    ],
)
def test_a_wrong_value_is_answered_with_what_is_right(name: str, value: Any, said: str) -> None:
    """Whether the client would see it or the applier alone."""
    (wrong,) = wrong_variables([("fleet:vars", {name: value})], role_variables())
    assert said in str(wrong)


def test_a_secret_and_an_expression_are_left_to_whoever_knows_them() -> None:
    """Neither is compared with bounds, and no message could show them."""
    secret = "{{ secret }}"
    scope = [("fleet:vars", {"ai_proxy_url": secret, "ai_base_url": "{{ lookup('env', 'URL') }}"})]
    assert list(wrong_variables(scope, role_variables(), frozenset({secret}))) == []
    (wrong,) = wrong_variables([("fleet:vars", {"ai_proxy_url": "ftp://me:hush@proxy"})], role_variables())
    assert "hush" not in str(wrong)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"ai_pool_size": 10}, "50 connections can't be kept of 10"),
        ({"ai_gateway_port": 9090, "ai_metrics_port": 9090}, "is also ai_metrics_port"),
        (
            {"ai_tenants": {"a": {"uid": 1, "rate_share": 0.7}, "b": {"uid": 2, "rate_share": 0.7}}},
            "more than 1",
        ),
        ({"ai_tenants": {"a": {"uid": 1}, "b": {"uid": 1}}}, "uid of b is also that of a"),
        ({"ai_tenants": {"a": {"priority": 1}}}, "nobody can be a"),
        ({"ai_tenants": {"a": 5}}, "a is no mapping"),
    ],
)
def test_values_that_are_impossible_together_are_refused_as_the_client_does(
    own: dict[str, Any], said: str
) -> None:
    """By what a host sees, wherever each of them was written."""
    (found,) = contradictions(own)
    assert said in found.reason
    usual = {n: v for n, v in role_defaults().items() if n not in SECRETS}
    with pytest.raises((ConfigError, AttributeError)):
        loads(render_config(TEMPLATES, {**usual, **own}), path="rendered")


@pytest.mark.parametrize("value", [[1], {"a": 1}, [[]]])
def test_a_tenants_identity_of_another_kind_is_no_fault_of_the_program(value: object) -> None:
    """Whether it is one at all is told where types are checked."""
    assert list(contradictions({"ai_tenants": {"a": {"uid": value}}})) == []
