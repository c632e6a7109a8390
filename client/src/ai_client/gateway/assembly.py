"""From settings to a client with its cache and ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ai_client.budgets import BudgetPlan
from ai_client.cache import ResponseCache
from ai_client.client import AIAPIClient
from ai_client.events import EventStream
from ai_client.gateway.routing import DeclaredRouting
from ai_client.keys import KeyProvider
from ai_client.ledger import SpendLedger
from ai_client.options import (
    CacheOptions,
    ClientOptions,
    Limits,
    QueueOptions,
    RetryOptions,
    TenantOptions,
)
from ai_client.prices import Prices
from ai_client.settings import CachingSettings, KeyPair, Settings
from ai_client.transport.base import Timeouts, Transport, TransportOptions
from ai_client.transport.direct import default_transport

LEDGER_NAME = "ledger.sqlite"
STATE_VARIABLE = "STATE_DIRECTORY"
GIGABYTE = 1_000_000_000
# A tenant without a share of its own weighs as much as one with a tenth.
DEFAULT_WEIGHT = 0.1


def state_folder(settings: Settings, environment: Mapping[str, str]) -> Path:
    """Where what must survive lies: systemd's state directory, else the cache folder."""
    return Path(environment.get(STATE_VARIABLE) or settings.caching.cache_dir)


def client_options(settings: Settings) -> ClientOptions:
    """The client's knobs as the settings have them."""
    tenants = {
        tenant.name: TenantOptions(weight=tenant.rate_share)
        for tenant in settings.tenants
        if tenant.rate_share is not None and tenant.rate_share > 0
    }
    models = settings.models
    chain = models.fallback_chain or ((models.fallback,) if models.fallback else ())
    return ClientOptions(
        transport=transport_options(settings),
        retry=RetryOptions(max_retries=settings.api.max_retries),
        queue=QueueOptions(tenants=tenants, default_weight=DEFAULT_WEIGHT),
        cache=CacheOptions(ttl_s=settings.caching.ttl_s, ttl_by_endpoint=_ttl_by_endpoint(settings.caching)),
        fallback_chain=chain,
    )


def limits(settings: Settings) -> Limits:
    """What this host may send."""
    performance = settings.performance
    return Limits(
        performance.max_concurrent_requests, performance.rate_limit_rpm, performance.token_limit_tpm
    )


def transport_options(settings: Settings) -> TransportOptions:
    """How connections to the upstream are made and kept."""
    api, security = settings.api, settings.security
    return TransportOptions(
        pool_size=api.connection_pool_size,
        keepalive_connections=api.keepalive_connections,
        keepalive_expiry_s=api.keepalive_expiry_s,
        verify_tls=security.verify_ssl,
        ca_path=None if security.cert_path is None else str(security.cert_path),
        proxy_url=security.proxy_url,
        timeouts=Timeouts(
            pool_s=api.pool_timeout_s,
            connect_s=settings.performance.connection_timeout_s,
            headers_s=api.timeout_s,
            read_s=settings.performance.read_timeout_s,
        ),
    )


def _ttl_by_endpoint(caching: CachingSettings) -> dict[str, float]:
    given = {
        "chat/completions": caching.ttl_chat_s,
        "completions": caching.ttl_completions_s,
        "embeddings": caching.ttl_embeddings_s,
    }
    return {endpoint: ttl_s for endpoint, ttl_s in given.items() if ttl_s is not None}


def key_provider(keys: KeyPair, *, reload: Callable[[], str | None]) -> KeyProvider:
    """The keys as the client wants them."""
    following = None if keys.following is None else keys.following.secret
    return KeyProvider(keys.current.secret, following=following, reload=reload)


@dataclass(frozen=True, slots=True)
class Assembly:
    """A client and the stores that it uses."""

    client: AIAPIClient
    transport: Transport
    cache: ResponseCache | None
    ledger: SpendLedger

    def reconfigure(self, settings: Settings, keys: KeyPair) -> None:
        """Take what a running client can take."""
        following = None if keys.following is None else keys.following.secret
        self.client.reconfigure(
            api_key=keys.current.secret,
            following_key=following,
            limits=limits(settings),
            options=client_options(settings),
            routing=DeclaredRouting(settings.routing),
        )

    async def aclose(self) -> None:
        """End all: the client first, as it still books into the ledger."""
        await self.client.aclose()
        await self.transport.aclose()
        self.ledger.close()
        if self.cache is not None:
            self.cache.close()


def assemble(
    settings: Settings,
    keys: KeyProvider,
    *,
    state: Path,
    events: EventStream,
    predecessor: AIAPIClient | None = None,
) -> Assembly:
    """A client for one configuration, on the running event loop; it shares its admission with `predecessor`."""
    caching, bounds = settings.caching, limits(settings)
    cache = None
    if caching.enabled:
        cache = ResponseCache(
            caching.cache_dir,
            scope=settings.api.base_url,
            max_bytes=int(caching.max_cache_size_gb * GIGABYTE),
            events=events,
        )
    ledger = SpendLedger(
        state / LEDGER_NAME,
        prices=Prices.from_settings(settings.model_costs),
        plan=BudgetPlan.from_settings(settings.budget, settings.tenants),
        tags=settings.cost_tags,
        events=events,
    )
    options = client_options(settings)
    transport = default_transport(options.transport)
    client = AIAPIClient(
        keys,
        base_url=settings.api.base_url,
        max_concurrent=bounds.max_concurrent,
        requests_per_minute=bounds.requests_per_minute,
        tokens_per_minute=bounds.tokens_per_minute,
        options=options,
        routing=DeclaredRouting(settings.routing),
        transport=transport,
        cache=cache,
        ledger=ledger,
        events=events,
        predecessor=predecessor,
    )
    return Assembly(client, transport, cache, ledger)
