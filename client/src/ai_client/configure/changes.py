"""What a new configuration asks for: a running client takes some of it, a new client more, a new process the rest."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ai_client.settings import Settings

# What is opened or started once: sockets, the audit trail, the spool's worker.
_PROCESS = (
    ("gateway", ("socket", "host", "port")),
    ("audit", ("enabled", "retention_days")),
    ("traces", ("otlp_endpoint", "service_name", "sample_share")),
    ("batch", ("mode", "spool_dir", "max_attempts")),
    ("budget", ("shared",)),
    ("coordination", ("endpoint", "user", "password_file", "ca_path", "account", "host")),
    ("monitoring", ("enable_metrics", "export_prometheus", "metrics_host", "metrics_port")),
)
# What a client and its stores read once, when they are made.
_CLIENT = (
    ("api", ("base_url", "timeout_s", "connection_pool_size", "keepalive_connections", "keepalive_expiry_s")),
    (
        "api",
        (
            "pool_timeout_s",
            "dialect",
            "api_version",
            "needs_key",
            "key_from",
            "told_cost",
            "bills_cut_streams",
        ),
    ),
    ("performance", ("connection_timeout_s", "read_timeout_s")),
    ("security", ("verify_ssl", "proxy_url", "cert_path")),
    ("caching", ("enabled", "cache_dir", "max_cache_size_gb")),
    ("budget", ("daily_usd", "monthly_usd", "alert_at_share", "timezone", "hard_stop")),
)


@dataclass(frozen=True, slots=True)
class Changes:
    """`sections` names what differs at all; the other two say what it takes."""

    sections: tuple[str, ...]
    needs_client: bool
    needs_process: bool


def changes(before: Settings, after: Settings) -> Changes:
    """Compare two configurations."""
    return Changes(
        sections=tuple(
            item.name for item in fields(Settings) if getattr(before, item.name) != getattr(after, item.name)
        ),
        needs_client=_differs(_CLIENT, before, after)
        or before.model_costs != after.model_costs
        or before.upstreams != after.upstreams
        or before.limits != after.limits
        or before.cost_tags != after.cost_tags
        or _tenant_budgets(before) != _tenant_budgets(after),
        needs_process=_differs(_PROCESS, before, after),
    )


def _differs(names: tuple[tuple[str, tuple[str, ...]], ...], before: Settings, after: Settings) -> bool:
    return any(
        getattr(getattr(before, section), key) != getattr(getattr(after, section), key)
        for section, keys in names
        for key in keys
    )


def _tenant_budgets(settings: Settings) -> dict[str, tuple[float | None, float | None]]:
    return {tenant.name: (tenant.daily_usd, tenant.monthly_usd) for tenant in settings.tenants}
