"""The fleet program renders the role's templates by itself: byte for byte what the role sends to a host."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from applier.on_controller import wire

from infra import project_files
from infra.hosts import fleet, local
from infra.hosts.inventory import inventory
from infra.plan import render
from infra.playbook.requests import shared_variables
from infra.state import quota
from tests.infra.stacks import KEY, load, shipped

ROOT = Path(__file__).resolve().parents[2]
INDEX = json.dumps({"version": "1.0.0", "trees": {"cp311-x86_64": {"file": "a", "sha256": "a" * 64}}})

EVERYTHING: dict[str, Any] = {
    "ai_claim": "fleet/elsewhere/one",
    "ai_claim_owner": "fleet/elsewhere",
    "ai_claim_lineage": "0123456789abcdef",
    "ai_take_over": "fleet/before",
    "ai_needs_consent": True,
    "ai_consent": "fleet/elsewhere/one",
    "ai_adopt_account": True,
    "ai_run": "0123456789abcdef",
    "ai_client_version": "1.0.0",
    "ai_client_digest": hashlib.sha256(INDEX.encode()).hexdigest(),
    "ai_python": "own",
    "ai_keep_releases": 4,
    "ai_health_deadline": 20.5,
    "ai_gate_seconds": 2.5,
    "ai_gate_error_share": 0.5,
    "ai_gate_throttled_share": 1,
    "ai_gate_overhead_ms": 250,
    "ai_try_keys": False,
    "ai_config_dir": "/srv/ai/etc",
    "ai_cache_dir": "/srv/ai/cache",
    "ai_log_dir": "/srv/ai/log",
    "ai_fetch_dir": "kept",
    "ai_provider": "holysheep & söhne",
    "ai_base_url": "https://proxy.example:8443/v1/<y>",
    "ai_timeout": 12.5,
    "ai_max_retries": 0,
    "ai_pool_size": 7,
    "ai_keepalive_connections": 6,
    "ai_keepalive_expiry": 1.25,
    "ai_pool_timeout": 3,
    "ai_traces_otlp_endpoint": "http://collector.example:4318/v1/traces",
    "ai_traces_service_name": "own",
    "ai_traces_sample_share": 0.25,
    "ai_dialect": "azure",
    "ai_api_version": "2025-04-01-preview",
    "ai_key_prefix": "sk-, hs_test_",
    "ai_needs_key": False,
    "ai_gateway_names": ["a.internal", "b.internal"],
    "ai_key_from": "credential",
    "ai_credential_dir": "/etc/credstore",
    "ai_told_cost": True,
    "ai_bills_cut_streams": True,
    "ai_limits": {"open-router/gpt-4.1": {"requests_per_minute": 7, "burst_s": 1.5, "counts": "estimate"}},
    "ai_upstreams": {
        "open-router": {
            "base_url": "https://openrouter.example/api/v1",
            "models": {"gpt-4.1": "openai/gpt-4.1", "Other": "vendor/other"},
            "prices": {"gpt-4.1": {"input": 2, "output": 8.5}, "Other": 3},
            "order": 0,
            "weight": 0.5,
        },
        "Own": {
            "base_url": "http://10.0.0.1:8000/v1",
            "needs_key": False,
            "key_from": "credential",
            "dialect": "openai",
        },
    },
    "ai_model_default": "claude-sonnet-4.5",
    "ai_fallback_model": "",
    "ai_model_fallback_chain": ["gpt-4.1", "mine"],
    "ai_model_costs": {
        "mine": {"output": 3, "input": 1.5, "cached_input": 0.1},
        "tiered": {
            "input": 1,
            "cache_write": 2,
            "cache_write_1h": 3,
            "audio_output": 80,
            "image_input": 8,
            "cached_image_input": 2,
            "image_output": 32,
            "minute": 0.006,
            "characters": 15,
            "regional": 1.1,
            "long_from": 200_000,
            "long": {"input": 2},
            "request": 0.01,
            "flex": 0.5,
            "priority": {"output": 7, "input": 3},
        },
        "gpt-4.1": 8,
        "Upper": 0,
    },
    "ai_conn_timeout": 4,
    "ai_read_timeout": 61.0,
    "ai_concurrency_limit": 12,
    "ai_timeout_buffer": 2,
    "ai_rpm": 77,
    "ai_tpm": 90_000,
    "ai_caching_enabled": False,
    "ai_cache_ttl": 60,
    "ai_cache_ttl_endpoints": {"embeddings": 86400, "chat": 1.5},
    "ai_cache_size": 0.5,
    "ai_log_level": "DEBUG",
    "ai_log_retention_days": 3,
    "ai_verify_ssl": False,
    "ai_proxy_url": "socks5://proxy:1080",
    "ai_cert_path": "/srv/ai/ca.pem",
    "ai_custom_ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "ai_enable_metrics": False,
    "ai_metrics_host": "::1",
    "ai_metrics_port": 9191,
    "ai_export_prometheus": False,
    "ai_metrics_token_sha256": "b" * 64,
    "ai_gateway_socket": "/run/ai-client/other.sock",
    "ai_gateway_host": "::1",
    "ai_gateway_port": 8801,
    "ai_gateway_drain_seconds": 1.5,
    "ai_gateway_max_body_mb": 2,
    "ai_gateway_unnamed_callers": "refuse",
    "ai_gateway_pass_through": ["/v1/conversations*", "GET /v1/batches"],
    "ai_tenants": {"web": {"uid": 33, "rate_share": 0.5}, "Api": {"token_sha256": "a" * 64, "priority": 1}},
    "ai_budget_daily_usd": 12.5,
    "ai_budget_monthly_usd": 100,
    "ai_budget_alert_at": 0.75,
    "ai_budget_timezone": "Europe/Berlin",
    "ai_budget_hard_stop": False,
    "ai_budget_shared": True,
    "ai_routing_ordinary": "deepseek-v3.2",
    "ai_routing_critical": "gpt-4.1",
    "ai_routing_critical_share": 0.2,
    "ai_batch_mode": True,
    "ai_batch_spool_dir": "/srv/ai/spool",
    "ai_batch_max_attempts": 9,
    "ai_audit_enabled": False,
    "ai_audit_retention_days": 7,
    "ai_coordination_endpoint": "rediss://engine:6380/2",
    "ai_coordination_user": "fleet",
    "ai_coordination_password_file": "/srv/ai/engine",
    "ai_coordination_ca_path": "/srv/ai/ca.pem",
    "ai_coordination_account": "main",
    "ai_coordination_host": "web-1",
    "ai_cost_tags": {"team": "search", "Cost": 12},
    "ai_environment": "staging",
    "ai_bench_arguments": ["--quick"],
}
BY_OTHERS = {
    "ai_api_key",
    "ai_api_key_next",
    "ai_artefacts",
    "ai_upstream_keys",
    "ai_upstream_keys_next",
    "ai_coordination_password",
}


def stack_inventory(name: str) -> dict[str, Any]:
    """The inventory that runs of a shipped stack get."""
    settings = load(shipped(name) | {"apiKey": KEY}, stack=name)
    declared = quota.compile_limits(settings, fleet.build(settings))
    return inventory(declared, shared_variables(settings, local.captured(name)), claimed=True)


def everything_set() -> dict[str, Any]:
    """One host that sets every variable, some of which groups have set otherwise: the nearest scope wins."""
    host = {name: EVERYTHING[name] for name in sorted(EVERYTHING)[::2]}
    group = {name: value for name, value in EVERYTHING.items() if name not in host}
    far = {"ai_rpm": 1, "ai_log_level": "ERROR", "ai_timeout": 1}
    below = {"b-parent": {"vars": far, "children": {"web": None}}, "a-parent": {"children": {"web": None}}}
    web = {"hosts": {"one": host}, "vars": group}
    return {"all": {"vars": far, "children": {"web": web, **below}}}


def sent_by_the_role(made: dict[str, Any], folder: Path) -> dict[str, dict[str, str]]:
    """Every host's files as the role sends them: the hosts' interpreter keeps what it is given."""
    folder.joinpath("index.json").write_text(INDEX)
    for host, variables in hosts_of(made["all"]).items():
        kept = folder / f"python-{host}"
        kept.write_text(f"#!/bin/sh\ncat > {folder}/{host}.stdin\n")
        kept.chmod(0o755)
        variables |= {"ansible_connection": "local", "ansible_become": False}
        variables |= {"ansible_python_interpreter": str(kept)}
    (folder / "inventory.yml").write_text(yaml.safe_dump(made, sort_keys=False, allow_unicode=True))
    words = [str(ROOT / ".venv/bin/ansible-playbook"), "-i", str(folder / "inventory.yml")]
    words += ["-e", f"ai_artefacts={folder}", "--check", "ansible/ai-client-deploy.yml"]
    environment = os.environ | {"ANSIBLE_CONFIG": "ansible/ansible.cfg", "HOLYSHEEP_API_KEY": KEY}
    subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, timeout=120, check=False)
    return {host: request(folder / f"{host}.stdin") for host in hosts_of(made["all"])}


def hosts_of(group: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    found = dict((group or {}).get("hosts") or {})
    for child in ((group or {}).get("children") or {}).values():
        found |= hosts_of(child)
    return found


def request(path: Path) -> dict[str, str]:
    """The files in what an interpreter was given on standard input: program, sizes, state."""
    sizes, _, texts = path.read_bytes().removeprefix(wire.program_text()).partition(b"\n")
    desired = json.loads(texts[: int(sizes.split()[0])])
    units = {f"/etc/systemd/system/{name}": text for name, text in desired["units"].items()}
    return {f"{desired['directories']['config']}/ai-client.conf": desired["config"], **units}


@pytest.mark.parametrize("name", ["dev", "production", "everything"])
def test_the_program_renders_the_bytes_that_the_role_sends(tmp_path: Path, name: str) -> None:
    """For every host of both shipped stacks, and for one with every variable set."""
    made = everything_set() if name == "everything" else stack_inventory(name)
    rendered = {host: render.files(render.host_variables(made, host)) for host in hosts_of(made["all"])}
    assert rendered == sent_by_the_role(made, tmp_path)


def test_no_variable_is_left_out_above() -> None:
    """A new variable of the role has to be set above, to something else than its default."""
    assert set(EVERYTHING) == set(project_files.role_variables()) - BY_OTHERS
    assert [n for n, value in EVERYTHING.items() if value == project_files.role_defaults()[n]] == []
