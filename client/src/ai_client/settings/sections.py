"""The configuration as frozen data: one dataclass a section, one field a key, units in the fields' names."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ai_client.settings import kinds
from ai_client.settings.prices import ModelPrice, flat_price

if TYPE_CHECKING:
    from ai_client.settings.kinds import Kind

DAY_S = 86_400
DIALECTS = kinds.choice("compatible", "openai", "azure", "anthropic")
#: Where a key comes from: a file, a credential that systemd hands to the service, or what the host is.
KEY_FROM = kinds.choice("file", "credential", "google", "azure")
_HOLYSHEEP = "holysheep.ai"
_SECONDS = kinds.number(least=0, most=DAY_S, above=True)
_SECONDS_OR_NONE = kinds.number(least=0, most=DAY_S)
_COUNT = kinds.integer(least=1, most=100_000)
_COUNT_OR_NONE = kinds.integer(least=0, most=100_000)
_PER_MINUTE = kinds.integer(least=1, most=100_000_000)
_TOKENS_PER_MINUTE = kinds.integer(least=1, most=100_000_000_000)
_PORT = kinds.integer(least=0, most=65_535)
_SHARE = kinds.number(least=0, most=1)
_USD = kinds.number(least=0, most=1e9)
_DAYS = kinds.integer(least=1, most=3_650)


def reads(key: str, kind: Kind) -> dict[str, Any]:
    """Marks a field as what the file's `key` sets."""
    return {"key": key, "kind": kind}


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """`[api]`: the upstream, and the connections to it. The key is never here."""

    base_url: str = field(default="https://api.holysheep.ai/v1", metadata=reads("base_url", kinds.base_url))
    timeout_s: float = field(default=30.0, metadata=reads("timeout", _SECONDS))
    max_retries: int = field(default=3, metadata=reads("max_retries", kinds.integer(least=0, most=20)))
    connection_pool_size: int = field(default=100, metadata=reads("connection_pool_size", _COUNT))
    keepalive_connections: int = field(default=50, metadata=reads("keepalive_connections", _COUNT_OR_NONE))
    keepalive_expiry_s: float = field(default=30.0, metadata=reads("keepalive_expiry", _SECONDS_OR_NONE))
    pool_timeout_s: float = field(default=5.0, metadata=reads("pool_timeout", _SECONDS))
    dialect: str = field(default="compatible", metadata=reads("dialect", DIALECTS))
    api_version: str = field(default="", metadata=reads("api_version", kinds.optional_text))
    key_prefixes: tuple[str, ...] = field(default=(), metadata=reads("key_prefix", kinds.words))
    needs_key: bool = field(default=True, metadata=reads("needs_key", kinds.boolean))
    key_from: str = field(default="file", metadata=reads("key_from", KEY_FROM))
    told_cost: bool = field(default=False, metadata=reads("told_cost", kinds.boolean))
    bills_cut_streams: bool = field(default=False, metadata=reads("bills_cut_streams", kinds.boolean))

    @property
    def known_prefixes(self) -> tuple[str, ...]:
        """What a key has to begin with: as declared, or as HolySheep's do."""
        host = urlsplit(self.base_url).hostname or ""
        is_holysheep = host == _HOLYSHEEP or host.endswith(f".{_HOLYSHEEP}")
        return self.key_prefixes or (("hs_live_", "hs_test_") if is_holysheep else ())


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """`[upstream NAME]`: another provider's account, beside that of `[api]`. Its models are called `NAME/MODEL`."""

    name: str
    base_url: str = field(default="", metadata=reads("base_url", kinds.base_url))
    dialect: str = field(default="compatible", metadata=reads("dialect", DIALECTS))
    api_version: str = field(default="", metadata=reads("api_version", kinds.optional_text))
    key_file: Path | None = field(default=None, metadata=reads("key_file", kinds.optional(kinds.path)))
    key_prefixes: tuple[str, ...] = field(default=(), metadata=reads("key_prefix", kinds.words))
    needs_key: bool = field(default=True, metadata=reads("needs_key", kinds.boolean))
    key_from: str = field(default="file", metadata=reads("key_from", KEY_FROM))
    told_cost: bool = field(default=False, metadata=reads("told_cost", kinds.boolean))
    bills_cut_streams: bool = field(default=False, metadata=reads("bills_cut_streams", kinds.boolean))
    models: dict[str, str] = field(default_factory=dict, metadata=reads("models", kinds.named_models))
    order: int = field(default=1, metadata=reads("order", kinds.integer(least=0, most=1000)))
    weight: float = field(default=1.0, metadata=reads("weight", kinds.number(least=0, most=1e6, above=True)))


_LIMIT = kinds.optional(_TOKENS_PER_MINUTE)


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """`[limit NAME]`: this host's limits for one model (another upstream's: `NAME/MODEL`), or for a whole upstream."""

    name: str
    requests_per_minute: int | None = field(default=None, metadata=reads("requests_per_minute", _LIMIT))
    tokens_per_minute: int | None = field(default=None, metadata=reads("tokens_per_minute", _LIMIT))
    input_tokens_per_minute: int | None = field(
        default=None, metadata=reads("input_tokens_per_minute", _LIMIT)
    )
    output_tokens_per_minute: int | None = field(
        default=None, metadata=reads("output_tokens_per_minute", _LIMIT)
    )
    images_per_minute: int | None = field(default=None, metadata=reads("images_per_minute", _LIMIT))
    requests_per_day: int | None = field(default=None, metadata=reads("requests_per_day", _LIMIT))
    tokens_per_day: int | None = field(default=None, metadata=reads("tokens_per_day", _LIMIT))
    burst_s: float | None = field(
        default=None, metadata=reads("burst_s", kinds.optional(kinds.number(least=1, most=60)))
    )
    counts: str = field(default="use", metadata=reads("counts", kinds.choice("use", "estimate")))


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """`[models]`: which model to use if the caller names none, and which to try if one fails."""

    default: str = field(default="gpt-4.1", metadata=reads("default", kinds.model))
    fallback: str | None = field(default="gpt-4.1", metadata=reads("fallback", kinds.optional(kinds.model)))
    fallback_chain: tuple[str, ...] = field(default=(), metadata=reads("fallback_chain", kinds.models))


LIST_PRICES = {
    "gpt-4.1": flat_price(8.0),
    "claude-sonnet-4.5": flat_price(15.0),
    "gemini-2.5-flash": flat_price(2.5),
    "deepseek-v3.2": flat_price(0.42),
}


@dataclass(frozen=True, slots=True)
class PerformanceSettings:
    """`[performance]`: timeouts, concurrency, and this host's part of the account's quota."""

    connection_timeout_s: float = field(default=10.0, metadata=reads("connection_timeout", _SECONDS))
    read_timeout_s: float = field(default=60.0, metadata=reads("read_timeout", _SECONDS))
    max_concurrent_requests: int = field(default=50, metadata=reads("max_concurrent_requests", _COUNT))
    request_timeout_buffer_s: float = field(
        default=5.0, metadata=reads("request_timeout_buffer", _SECONDS_OR_NONE)
    )
    rate_limit_rpm: int = field(default=60, metadata=reads("rate_limit", _PER_MINUTE))
    token_limit_tpm: int | None = field(
        default=None, metadata=reads("token_limit", kinds.optional(_TOKENS_PER_MINUTE))
    )


_TTL = kinds.number(least=0, most=365 * DAY_S)


@dataclass(frozen=True, slots=True)
class CachingSettings:
    """`[caching]`: responses kept on disk."""

    enabled: bool = field(default=True, metadata=reads("enabled", kinds.boolean))
    cache_dir: Path = field(default=Path("/var/cache/ai-client"), metadata=reads("cache_dir", kinds.path))
    ttl_s: float = field(default=3600.0, metadata=reads("ttl_seconds", _TTL))
    ttl_chat_s: float | None = field(default=None, metadata=reads("ttl_seconds_chat", kinds.optional(_TTL)))
    ttl_completions_s: float | None = field(
        default=None, metadata=reads("ttl_seconds_completions", kinds.optional(_TTL))
    )
    ttl_embeddings_s: float | None = field(
        default=None, metadata=reads("ttl_seconds_embeddings", kinds.optional(_TTL))
    )
    max_cache_size_gb: float = field(
        default=10.0, metadata=reads("max_cache_size_gb", kinds.number(least=0, most=1e5, above=True))
    )


@dataclass(frozen=True, slots=True)
class LoggingSettings:
    """`[logging]`: JSON lines, one file per day."""

    level: str = field(
        default="INFO", metadata=reads("level", kinds.choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
    )
    log_dir: Path = field(default=Path("/var/log/ai-client"), metadata=reads("log_dir", kinds.path))
    format: str = field(default="json", metadata=reads("format", kinds.choice("json")))
    rotation: str = field(default="daily", metadata=reads("rotation", kinds.choice("daily")))
    retention_days: int = field(default=30, metadata=reads("retention_days", _DAYS))


@dataclass(frozen=True, slots=True)
class SecuritySettings:
    """`[security]`: how to verify and reach the upstream."""

    verify_ssl: bool = field(default=True, metadata=reads("verify_ssl", kinds.boolean))
    proxy_url: str | None = field(
        default=None,
        metadata=reads("proxy_url", kinds.optional(kinds.url("http", "https", "socks5", "socks5h"))),
    )
    cert_path: Path | None = field(default=None, metadata=reads("cert_path", kinds.optional(kinds.path)))


@dataclass(frozen=True, slots=True)
class MonitoringSettings:
    """`[monitoring]`: where Prometheus reads metrics. Port 0 takes any free port."""

    enable_metrics: bool = field(default=True, metadata=reads("enable_metrics", kinds.boolean))
    metrics_host: str = field(default="127.0.0.1", metadata=reads("metrics_host", kinds.word))
    metrics_port: int = field(default=9090, metadata=reads("metrics_port", _PORT))
    export_prometheus: bool = field(default=True, metadata=reads("export_prometheus", kinds.boolean))
    #: Of the token that readers of metrics and status must send; none where not set.
    token_sha256: str | None = field(
        default=None, metadata=reads("token_sha256", kinds.optional(kinds.sha256))
    )


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """`[gateway]`: where programs on this host reach the service. Port 0 turns TCP off."""

    socket: Path = field(default=Path("/run/ai-client/gateway.sock"), metadata=reads("socket", kinds.path))
    host: str = field(default="127.0.0.1", metadata=reads("host", kinds.word))
    port: int = field(default=8800, metadata=reads("port", _PORT))
    #: By which names callers may address it beside its own: a DNS name of a pod's service, say.
    names: tuple[str, ...] = field(default=(), metadata=reads("names", kinds.words))
    drain_s: float = field(default=60.0, metadata=reads("drain_seconds", _SECONDS_OR_NONE))
    max_body_mb: float = field(
        default=20.0, metadata=reads("max_body_mb", kinds.number(least=0, most=1024, above=True))
    )
    #: Paths beside the known APIs that go upstream as they come: `/v1/conversations*`, `GET /v1/batches`.
    pass_through: tuple[str, ...] = field(default=(), metadata=reads("pass_through", kinds.routes))
    #: What a uid may do on the socket that is neither an operator's nor any tenant's.
    unnamed_callers: str = field(
        default="auto", metadata=reads("unnamed_callers", kinds.choice("auto", "allow", "refuse"))
    )


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """`[tenant NAME]`: a caller, identified by its uid (Unix socket) or by its token's SHA-256 (TCP)."""

    name: str
    token_sha256: str | None = field(
        default=None, metadata=reads("token_sha256", kinds.optional(kinds.sha256))
    )
    uid: int | None = field(
        default=None, metadata=reads("uid", kinds.optional(kinds.integer(least=0, most=2**32 - 2)))
    )
    rate_share: float | None = field(default=None, metadata=reads("rate_share", kinds.optional(_SHARE)))
    priority: int = field(default=5, metadata=reads("priority", kinds.integer(least=0, most=9)))
    daily_usd: float | None = field(default=None, metadata=reads("daily_usd", kinds.optional(_USD)))
    monthly_usd: float | None = field(default=None, metadata=reads("monthly_usd", kinds.optional(_USD)))


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """`[budget]`: spending limits of this host, or of all hosts together (`shared`). Default: none."""

    daily_usd: float | None = field(default=None, metadata=reads("daily_usd", kinds.optional(_USD)))
    monthly_usd: float | None = field(default=None, metadata=reads("monthly_usd", kinds.optional(_USD)))
    alert_at_share: float = field(default=0.8, metadata=reads("alert_at", _SHARE))
    timezone: str = field(default="UTC", metadata=reads("timezone", kinds.timezone))
    hard_stop: bool = field(default=True, metadata=reads("hard_stop", kinds.boolean))
    shared: bool = field(default=False, metadata=reads("shared", kinds.boolean))


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    """`[routing]`: which models get requests that are marked as ordinary or critical."""

    ordinary: str | None = field(default=None, metadata=reads("ordinary", kinds.optional(kinds.model)))
    critical: str | None = field(default=None, metadata=reads("critical", kinds.optional(kinds.model)))
    critical_share: float | None = field(
        default=None, metadata=reads("critical_share", kinds.optional(_SHARE))
    )


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """`[batch]`: whether this host processes files from a spool folder, and batches that hosts share."""

    mode: bool = field(default=False, metadata=reads("mode", kinds.boolean))
    spool_dir: Path = field(
        default=Path("/var/cache/ai-client/spool"), metadata=reads("spool_dir", kinds.path)
    )
    max_attempts: int = field(default=3, metadata=reads("max_attempts", kinds.integer(least=1, most=100)))


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """`[audit]`: one line for each API call, never with its text."""

    enabled: bool = field(default=True, metadata=reads("enabled", kinds.boolean))
    retention_days: int = field(default=90, metadata=reads("retention_days", _DAYS))


@dataclass(frozen=True, slots=True)
class CoordinationSettings:
    """`[coordination]`: one quota for several hosts, through a Valkey or Redis. Off without an endpoint.

    This host's share of the account is `rate_limit` and `token_limit` in `[performance]`.
    """

    endpoint: str | None = field(
        default=None, metadata=reads("endpoint", kinds.optional(kinds.endpoint("rediss", "redis")))
    )
    user: str | None = field(default=None, metadata=reads("user", kinds.optional(kinds.word)))
    password_file: Path = field(
        default=Path("/etc/ai-client/coordination"), metadata=reads("password_file", kinds.path)
    )
    ca_path: Path | None = field(default=None, metadata=reads("ca_path", kinds.optional(kinds.path)))
    account: str | None = field(default=None, metadata=reads("account", kinds.optional(kinds.word)))
    host: str | None = field(default=None, metadata=reads("host", kinds.optional(kinds.word)))


@dataclass(frozen=True, slots=True)
class TracesSettings:
    """`[traces]`: spans by OTLP over HTTP, in JSON. Off without an endpoint."""

    otlp_endpoint: str | None = field(
        default=None, metadata=reads("otlp_endpoint", kinds.optional(kinds.url("http", "https")))
    )
    service_name: str = field(default="ai-client", metadata=reads("service_name", kinds.word))
    sample_share: float = field(default=1.0, metadata=reads("sample_share", _SHARE))


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole configuration. Every part has its defaults, so `Settings()` is that of an empty file."""

    api: ApiSettings = ApiSettings()
    models: ModelSettings = ModelSettings()
    model_costs: dict[str, ModelPrice] = field(default_factory=lambda: dict(LIST_PRICES))
    performance: PerformanceSettings = PerformanceSettings()
    caching: CachingSettings = CachingSettings()
    logging: LoggingSettings = LoggingSettings()
    security: SecuritySettings = SecuritySettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    gateway: GatewaySettings = GatewaySettings()
    tenants: tuple[TenantSettings, ...] = ()
    upstreams: tuple[UpstreamSettings, ...] = ()
    limits: tuple[LimitSettings, ...] = ()
    budget: BudgetSettings = BudgetSettings()
    routing: RoutingSettings = RoutingSettings()
    batch: BatchSettings = BatchSettings()
    audit: AuditSettings = AuditSettings()
    coordination: CoordinationSettings = CoordinationSettings()
    traces: TracesSettings = TracesSettings()
    cost_tags: dict[str, str] = field(default_factory=dict)

    @property
    def refuses_unnamed(self) -> bool:
        """Whether a uid on the socket must be a tenant's: where one or a budget is declared, unless said otherwise."""
        declared = (
            bool(self.tenants) or self.budget.daily_usd is not None or self.budget.monthly_usd is not None
        )
        return self.gateway.unnamed_callers == "refuse" or (
            self.gateway.unnamed_callers == "auto" and declared
        )


SECTIONS: dict[str, type[Any]] = {
    "api": ApiSettings,
    "models": ModelSettings,
    "performance": PerformanceSettings,
    "caching": CachingSettings,
    "logging": LoggingSettings,
    "security": SecuritySettings,
    "monitoring": MonitoringSettings,
    "gateway": GatewaySettings,
    "budget": BudgetSettings,
    "routing": RoutingSettings,
    "batch": BatchSettings,
    "audit": AuditSettings,
    "coordination": CoordinationSettings,
    "traces": TracesSettings,
}
FREE_SECTIONS = ("model_costs", "cost_tags")
TENANT_PREFIX = "tenant "
UPSTREAM_PREFIX = "upstream "
#: Sections of which there may be several, each with a name.
LIMIT_PREFIX = "limit "
NAMED_SECTIONS: dict[str, type[Any]] = {
    TENANT_PREFIX: TenantSettings,
    UPSTREAM_PREFIX: UpstreamSettings,
    LIMIT_PREFIX: LimitSettings,
}


def keys_of(section: type[Any]) -> dict[str, tuple[str, Kind]]:
    """The keys of a section, each with its field's name and its kind."""
    return {
        item.metadata["key"]: (item.name, item.metadata["kind"])
        for item in fields(section)
        if "key" in item.metadata
    }
