"""From settings to a client with its cache and ledger."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from ai_client.admission.window import SlidingWindow
from ai_client.cache.response_cache import ResponseCache
from ai_client.client import AIAPIClient
from ai_client.configure.routing import DeclaredRouting
from ai_client.configure.upstreams import default_upstream, rotate
from ai_client.contract.events import EventStream
from ai_client.contract.keys import KeyProvider
from ai_client.contract.limits import ModelLimits
from ai_client.contract.options import (
    CacheOptions,
    ClientOptions,
    Limits,
    QueueOptions,
    RetryOptions,
    TenantOptions,
)
from ai_client.contract.upstreams import Upstream
from ai_client.ledger.allowance import Escrow
from ai_client.ledger.budgets import BudgetPlan
from ai_client.ledger.ledger import SpendLedger
from ai_client.ledger.prices import Prices
from ai_client.platform.clock import Clock, SystemClock
from ai_client.settings import CachingSettings, KeyPair, LimitSettings, LoadedKey, Settings
from ai_client.settings.places import costs_where_answered
from ai_client.stored.homes_file import HomesFile
from ai_client.transport.base import Timeouts, Transport, TransportOptions
from ai_client.transport.proxies import default_transport

LEDGER_NAME = "ledger.sqlite"
HOMES_NAME = "homes.sqlite"
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
        model_limits={each.name: model_limits(each) for each in settings.limits},
        trace_share=settings.traces.sample_share if settings.traces.otlp_endpoint else None,
    )


def limits(settings: Settings) -> Limits:
    """What this host may send."""
    performance = settings.performance
    return Limits(
        performance.max_concurrent_requests, performance.rate_limit_rpm, performance.token_limit_tpm
    )


def model_limits(settings: LimitSettings) -> ModelLimits:
    """Those of one `[limit NAME]`."""
    return ModelLimits(
        requests_per_minute=settings.requests_per_minute,
        tokens_per_minute=settings.tokens_per_minute,
        input_tokens_per_minute=settings.input_tokens_per_minute,
        output_tokens_per_minute=settings.output_tokens_per_minute,
        images_per_minute=settings.images_per_minute,
        requests_per_day=settings.requests_per_day,
        tokens_per_day=settings.tokens_per_day,
        burst_s=settings.burst_s,
        by_estimate=settings.counts == "estimate",
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


def client_beside_the_service(settings: Settings, key: LoadedKey) -> AIAPIClient:
    """For a question to the upstream of `[api]`, in its dialect: it keeps and counts nothing."""
    keys = KeyProvider(key.secret)
    upstreams = (default_upstream(settings.api, keys),)
    return AIAPIClient(keys, settings.api.base_url, options=client_options(settings), upstreams=upstreams)


@dataclass(frozen=True, slots=True)
class Assembly:
    """A client and the stores that it uses."""

    client: AIAPIClient
    transport: Transport
    cache: ResponseCache | None
    ledger: SpendLedger
    homes: HomesFile
    others: Sequence[Upstream] = ()

    def reconfigure(self, settings: Settings, keys: KeyPair) -> None:
        """Take what a running client can take."""
        rotate(self.others, keys.others)
        following = None if keys.following is None else keys.following.secret
        self.client.reconfigure(
            api_key=keys.current.secret,
            following_key=following,
            limits=limits(settings),
            options=client_options(settings),
            routing=DeclaredRouting(settings.routing),
        )

    def unfit(self, settings: Settings) -> str:
        """Why this may not take over from a process that serves: it would refuse everybody. "" where it may."""
        tenants = ("", *(tenant.name for tenant in settings.tenants))
        if self.ledger.stats().is_open or not any(self.ledger.is_hard(tenant) for tenant in tenants):
            return ""
        return (
            "its ledger can't be opened (see store_degraded in the log: a full disk, or a ledger of a newer "
            "release), and a hard budget needs it"
        )

    async def aclose(self) -> None:
        """End all: the client first, as it still books into the ledger."""
        async with AsyncExitStack() as ends:  # the last one first, and each whatever befalls another
            if self.cache is not None:
                ends.callback(self.cache.close)
            ends.callback(self.homes.close)
            ends.callback(self.ledger.close)
            ends.push_async_callback(self.transport.aclose)
            ends.push_async_callback(self.client.aclose)


def _cache(
    settings: Settings, others: Sequence[Upstream], events: EventStream, clock: Clock
) -> ResponseCache:
    """What one set of upstreams answered is not told for another."""
    caching = settings.caching
    return ResponseCache(
        caching.cache_dir,
        scope=" ".join((settings.api.base_url, *(f"{each.name}={each.base_url}" for each in others))),
        max_bytes=int(caching.max_cache_size_gb * GIGABYTE),
        events=events,
        clock=clock.wall,
    )


def assemble(
    settings: Settings,
    keys: KeyProvider,
    *,
    state: Path,
    events: EventStream,
    others: Sequence[Upstream] = (),
    predecessor: AIAPIClient | None = None,
    window: SlidingWindow | None = None,
    escrow: Escrow | None = None,
    clock: Clock | None = None,
    random_source: random.Random | None = None,
) -> Assembly:
    """A client for one configuration, on the running event loop; it shares its admission with `predecessor`.

    `others`: the upstreams beside the one of `[api]`. `window` counts instead of one of the client's own; `escrow`
    names who shares its budgets, where somebody does.
    """
    bounds, clock = limits(settings), clock or SystemClock()
    cache = _cache(settings, others, events, clock) if settings.caching.enabled else None
    escrow = escrow or Escrow()
    ledger = SpendLedger(
        state / LEDGER_NAME,
        prices=Prices.from_settings(costs_where_answered(settings)),
        plan=BudgetPlan.from_settings(settings.budget, settings.tenants, shared_by=escrow.account),
        tags=settings.cost_tags,
        events=events,
        escrow=escrow,
        clock=clock,
    )
    options = client_options(settings)
    transport = default_transport(options.transport, environment=os.environ)
    homes = HomesFile(state / HOMES_NAME, clock=clock, events=events)
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
        upstreams=(default_upstream(settings.api, keys), *others),
        homes=homes,
        predecessor=predecessor,
        window=window,
        clock=clock,
        random_source=random_source,
    )
    return Assembly(client, transport, cache, ledger, homes, others)
