"""Configurations that the tests of `infra` start from, as Pulumi hands them to the program."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from infra.config.load import load_settings
from infra.config.schema import FleetSettings

PROJECT = Path(__file__).resolve().parents[2]
KEY = "hs_test_0123456789abcdef"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx6xj1Hn0S6c5Z8N0yqkQe0Zz2k4fU2m0y8p2u9w0aB"

VARIABLES = {
    "ai_provider": {"type": "str"},
    "ai_base_url": {"type": "str"},
    "ai_model_default": {"type": "str"},
    "ai_fallback_model": {"type": "str"},
    "ai_model_costs": {"type": "dict"},
    "ai_timeout": {"type": "int"},
    "ai_max_retries": {"type": "int"},
    "ai_concurrency_limit": {"type": "int"},
    "ai_batch_mode": {"type": "bool"},
    "ai_budget_hard_stop": {"type": "bool"},
    "ai_budget_shared": {"type": "bool"},
    "ai_log_level": {"type": "str"},
    "ai_enable_metrics": {"type": "bool"},
    "ai_environment": {"type": "str"},
    "ai_proxy_url": {"type": "str"},
    "ai_verify_ssl": {"type": "bool"},
    "ai_cost_tags": {"type": "dict"},
    "ai_tenants": {"type": "dict"},
    "ai_cache_dir": {"type": "path"},
    "ai_log_dir": {"type": "path"},
    "ai_fetch_dir": {"type": "str"},
    "ai_rpm": {"type": "int"},
    "ai_tpm": {"type": "int"},
    "ai_gate_seconds": {"type": "float"},
    "ai_gateway_unnamed_callers": {"type": "str"},
    "ai_upstreams": {"type": "dict"},
    "ai_key_prefix": {"type": "str"},
    "ai_limits": {"type": "dict"},
    "ai_upstream_keys": {"type": "dict"},
    "ai_upstream_keys_next": {"type": "dict"},
    **{
        f"ai_coordination_{name}": {"type": "str"}
        for name in ("endpoint", "user", "password", "ca_path", "account", "host")
    },
}
MODELS = ("gpt-4.1", "claude-sonnet-4.5", "gemini-2.5-flash", "deepseek-v3.2")


def shipped(stack: str) -> dict[str, Any]:
    """The structured configuration of a stack file of this repository, keys without their prefix."""
    content = yaml.safe_load((PROJECT / f"Pulumi.{stack}.yaml").read_text(encoding="utf-8"))
    return {
        key.removeprefix("fleet:"): value
        for key, value in content["config"].items()
        if not (isinstance(value, dict) and "secure" in value)
    }


def load(
    config: dict[str, Any],
    *,
    stack: str = "production",
    secret: tuple[str, ...] = ("apiKey",),
    secret_paths: Mapping[str, Any] | None = None,
) -> FleetSettings:
    """Settings from structured configuration, by the way that the program takes."""
    values = {
        f"fleet:{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in config.items()
    }
    return load_settings(
        values,
        secret=[f"fleet:{key}" for key in secret],
        stack=stack,
        variables=VARIABLES,
        models=MODELS,
        secret_paths=secret_paths or {},
    )
