"""The configuration file as frozen data, and the key that comes from elsewhere."""

from ai_client.settings.credentials import DEFAULT_KEY_PATH, ApiKey, KeyMissingError, read_key
from ai_client.settings.ini import Problem
from ai_client.settings.load import DEFAULT_PATH, ConfigError, load, loads
from ai_client.settings.model import (
    LIST_PRICES,
    ApiSettings,
    AuditSettings,
    BatchSettings,
    BudgetSettings,
    CachingSettings,
    GatewaySettings,
    LoggingSettings,
    ModelPrice,
    ModelSettings,
    MonitoringSettings,
    PerformanceSettings,
    RoutingSettings,
    SecuritySettings,
    Settings,
    TenantSettings,
)

__all__ = [
    "DEFAULT_KEY_PATH",
    "DEFAULT_PATH",
    "LIST_PRICES",
    "ApiKey",
    "ApiSettings",
    "AuditSettings",
    "BatchSettings",
    "BudgetSettings",
    "CachingSettings",
    "ConfigError",
    "GatewaySettings",
    "KeyMissingError",
    "LoggingSettings",
    "ModelPrice",
    "ModelSettings",
    "MonitoringSettings",
    "PerformanceSettings",
    "Problem",
    "RoutingSettings",
    "SecuritySettings",
    "Settings",
    "TenantSettings",
    "load",
    "loads",
    "read_key",
]
