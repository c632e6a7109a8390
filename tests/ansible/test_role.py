"""The role's contract: its variables, its templates, and what Ansible's own tools say of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from applier.on_controller.errors import DeliveryError
from applier.on_controller.rendering import load_templates, render_config, render_units
from applier.on_controller.variables import SECRETS, load_options

from ai_client.settings import loads
from ai_client.settings.sections import SECTIONS, keys_of

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "ansible" / "roles" / "ai_client"
VENV = ROOT / ".venv" / "bin"
TEMPLATES = load_templates(ROLE / "templates")


def defaults() -> dict[str, Any]:
    """The role's defaults as a template sees them: without the keys."""
    values: dict[str, Any] = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    return {name: value for name, value in values.items() if name not in SECRETS}


def run(*argv: str, timeout_s: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a tool as `make` does."""
    seen = {**os.environ, "PATH": f"{VENV}:{os.environ['PATH']}", **environment}
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=ROOT, env=seen
    )


def test_every_variable_has_a_default_and_a_description() -> None:
    """The two files name the same variables; other entry points describe theirs in the same words."""
    options = load_options(ROLE)
    assert set(options["main"]) == set(defaults()) | set(SECRETS)
    for entry_point in options.values():
        for name, option in entry_point.items():
            assert option == options["main"][name]
            assert option["description"].endswith(".")


def test_secrets_are_marked_and_have_no_literal_default() -> None:
    """The keys come from Vault or the environment, and every other default is plain data."""
    written = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    assert {name for name, option in load_options(ROLE)["main"].items() if option.get("no_log")} == set(
        SECRETS
    )
    assert {name for name, value in written.items() if "{{" in str(value)} == set(SECRETS)


def test_the_defaults_make_the_configuration_that_the_client_has_by_default() -> None:
    """Rendered from the defaults, the file gives the client's own defaults."""
    settings = loads(render_config(TEMPLATES, defaults()), path="rendered")
    assert settings == loads("", path="empty")


def test_every_key_of_the_client_is_in_the_template() -> None:
    """A new key of the client can't be forgotten here."""
    lines = render_config(TEMPLATES, {**defaults(), **EVERY_SECTION}).splitlines()
    section, found = "", set()
    for line in lines:
        if line.startswith("["):
            section = line.strip("[]")
        elif " = " in line or line.endswith(" ="):
            found.add((section, line.partition(" =")[0]))
    wanted = {(name, key) for name, model in SECTIONS.items() for key in keys_of(model)}
    assert wanted <= found


ENDPOINTS = ("chat", "completions", "embeddings")
EVERY_SECTION: dict[str, Any] = {
    "ai_cache_ttl_endpoints": dict.fromkeys(ENDPOINTS, 60),
    "ai_coordination_endpoint": "rediss://engine:6379",
    "ai_budget_shared": True,
    "ai_dialect": "azure",
    "ai_api_version": "2025-04-01-preview",
    "ai_key_prefix": "sk-",
    "ai_needs_key": False,
    "ai_key_from": "google",
    "ai_told_cost": True,
    "ai_bills_cut_streams": True,
    "ai_gateway_pass_through": ["/v1/conversations"],
    "ai_gateway_names": ["ai-client.internal"],
    "ai_gateway_unnamed_callers": "refuse",
    "ai_metrics_token_sha256": "a" * 64,
    "ai_traces_otlp_endpoint": "http://127.0.0.1:4318/v1/traces",
}
CHANGED: dict[str, Any] = {
    "ai_timeout": 12.5,
    "ai_model_fallback_chain": ["a", "b"],
    "ai_fallback_model": "",
    "ai_model_costs": {"gpt-4.1": {"input": 8, "output": 24.5}, "mine": 0.1},
    "ai_tpm": 90000,
    "ai_cache_ttl_endpoints": {"embeddings": 60},
    "ai_verify_ssl": False,
    "ai_proxy_url": "socks5://proxy:1080",
    "ai_custom_ca": "-----BEGIN CERTIFICATE-----\n…",
    "ai_budget_daily_usd": 12.5,
    "ai_routing_critical_share": 0.2,
    "ai_tenants": {"web": {"uid": 33, "rate_share": 0.5}, "api": {"token_sha256": "a" * 64, "priority": 1}},
    "ai_cost_tags": {"team": "search"},
    "ai_environment": "production",
    "ai_coordination_endpoint": "rediss://engine:6380",
    "ai_coordination_user": "fleet",
}


def test_every_kind_of_value_arrives_in_the_client() -> None:
    """Lists, prices, limits, tenants, tags: what the variables say is what the client reads."""
    settings = loads(render_config(TEMPLATES, {**defaults(), **CHANGED}), path="rendered")
    assert (settings.api.timeout_s, settings.models.fallback, settings.models.fallback_chain) == (
        12.5,
        None,
        ("a", "b"),
    )
    price = settings.model_costs["gpt-4.1"]
    assert (price.input_usd_per_mtok, price.output_usd_per_mtok) == (8, 24.5)
    assert settings.performance.token_limit_tpm == 90000
    coordination = settings.coordination
    assert (coordination.endpoint, coordination.user) == ("rediss://engine:6380", "fleet")
    assert str(coordination.password_file) == "/etc/ai-client/coordination"
    assert (settings.caching.ttl_embeddings_s, settings.caching.ttl_chat_s) == (60, None)
    assert str(settings.security.cert_path) == "/etc/ai-client/ca-bundle.pem"
    assert (settings.budget.daily_usd, settings.budget.monthly_usd) == (12.5, None)
    assert {tenant.name: (tenant.uid, tenant.priority) for tenant in settings.tenants} == {
        "api": (None, 1),
        "web": (33, 5),
    }
    assert settings.cost_tags == {"environment": "production", "team": "search"}


def test_numbers_look_alike_whatever_type_they_came_in() -> None:
    """Ansible converts as argument_specs say, the fleet program takes what the stack's file holds: equal bytes."""
    as_text = {name: str(value) for name, value in defaults().items() if type(value) is int}
    as_float = {name: float(value) for name, value in defaults().items() if type(value) is int}
    plain = render_config(TEMPLATES, defaults())
    assert render_config(TEMPLATES, {**defaults(), **as_text}) == plain
    assert render_config(TEMPLATES, {**defaults(), **as_float}) == plain


def test_a_value_with_a_line_end_is_refused() -> None:
    """It would begin a line, and so a key, of its own."""
    with pytest.raises(DeliveryError, match="ai_base_url"):
        render_config(TEMPLATES, {**defaults(), "ai_base_url": "http://x\nhard_stop = false"})
    with pytest.raises(DeliveryError, match="ai_tenants"):
        render_config(TEMPLATES, {**defaults(), "ai_tenants": {"a]\n[api": {"uid": 1}}})


def test_systemd_takes_the_units_and_finds_them_hardened(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say; the exposure level is 2.0 or better."""
    units = render_units(TEMPLATES, defaults())
    assert list(units) == ["ai-client.socket", "ai-client-tcp.socket", "ai-client.service"]
    for name, text in units.items():
        (tmp_path / name).write_text(text.replace("/opt/ai-client/bin/ai-client", "/bin/true"))
    paths = [str(tmp_path / name) for name in units]
    checked = run("systemd-analyze", "verify", "--man=no", *paths)
    assert (checked.returncode, checked.stderr) == (0, "")
    scored = run("systemd-analyze", "security", "--offline=true", "--threshold=20", paths[-1])
    assert scored.returncode == 0, scored.stdout[-300:]


def test_a_port_of_zero_has_no_tcp_socket() -> None:
    """Neither a unit nor a word of it in the service."""
    units = render_units(TEMPLATES, {**defaults(), "ai_gateway_port": 0})
    assert list(units) == ["ai-client.socket", "ai-client.service"]
    assert "tcp" not in units["ai-client.service"]


def test_an_ipv6_address_is_written_as_systemd_wants_it() -> None:
    """In brackets before the port."""
    units = render_units(TEMPLATES, {**defaults(), "ai_gateway_host": "::1"})
    assert "ListenStream=[::1]:8800\n" in units["ai-client-tcp.socket"]


def test_ansible_doc_knows_the_module() -> None:
    """`ansible-doc` shows its options and what it returns."""
    shown = run(
        str(VENV / "ansible-doc"), "ai_client.fleet.ai_client_apply", ANSIBLE_CONFIG="ansible/ansible.cfg"
    )
    assert shown.returncode == 0, shown.stderr
    assert "key_fingerprint" in shown.stdout


@pytest.mark.parametrize(
    ("options", "tags"),
    [((), ["config", "deploy", "secrets", "verify"]), (("--skip-tags", "verify"), ["always"])],
)
def test_the_playbook_lists_its_tags(options: tuple[str, ...], tags: list[str]) -> None:
    """`--tags deploy` meets a task, and so does every other part."""
    shown = run(
        str(VENV / "ansible-playbook"),
        "-i",
        "somewhere,",
        "ansible/ai-client-deploy.yml",
        "--list-tags",
        *options,
        ANSIBLE_CONFIG="ansible/ansible.cfg",
    )
    assert shown.returncode == 0, shown.stderr
    assert f"TASK TAGS: [{', '.join(tags)}]" in shown.stdout
