"""Every knob of the client, as frozen data with its unit and default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ai_client.contract.limits import ModelLimits
from ai_client.transport.base import TransportOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """When a failed attempt goes again. See `calls.retry`."""

    #: Attempts beyond the first.
    max_retries: int = 3
    #: Full jitter: uniform between 0 and min(cap, base * 2**retry).
    backoff_base_s: float = 0.5
    backoff_cap_s: float = 30.0
    #: What every first attempt pays into the retry budget, and how much it holds: over any stretch of n
    #: requests at most `budget_share * n + budget_size` extra attempts go out.
    budget_share: float = 0.15
    budget_size: int = 10
    #: An upstream that asks for a longer wait is left alone until then: its callers are told the time.
    longest_wait_s: float = 60.0
    #: The same where another model or upstream may answer: it is asked at once.
    longest_wait_before_fallback_s: float = 5.0
    #: So long the first events of a stream wait that hold nothing of its answer: an error behind them goes again.
    heads_wait_s: float = 2.0
    #: The upstream is known to answer an Idempotency-Key that it has seen with the first answer.
    upstream_is_idempotent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantOptions:
    """A local tenant's share of what this client may send, relative to the other tenants' weights."""

    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """The admission queue. See `admission.scheduler`."""

    max_queued: int = 10_000
    tenants: Mapping[str, TenantOptions] = field(default_factory=dict)
    #: Weight of a tenant that is not named.
    default_weight: float = 1.0
    #: Longest network delay for which the limits hold as the server counts.
    network_delay_s: float = 0.1
    #: Every n-th admission of a tenant goes to its oldest waiter, whatever its priority.
    oldest_every: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOptions:
    """The circuit breaker of each model. See `admission.breaker`."""

    #: Opens when at least `failure_share` of the last `window` attempts failed.
    window: int = 20
    min_attempts: int = 5
    failure_share: float = 0.5
    #: How long it stays open; doubled at each failed probe up to the cap.
    open_s: float = 5.0
    open_cap_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveOptions:
    """The concurrency limit that follows latency. See `admission.concurrency`."""

    enabled: bool = True
    min_limit: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """How long answers stay, in seconds; `ttl_by_endpoint` wins."""

    ttl_s: float = 3600.0
    ttl_by_endpoint: Mapping[str, float] = field(default_factory=dict)

    def ttl_of(self, endpoint: str) -> float:
        return self.ttl_by_endpoint.get(endpoint, self.ttl_s)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may send. None: no limit."""

    max_concurrent: int = 50
    requests_per_minute: int | None = 3000
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """All of them. `AIAPIClient` takes one; `reconfigure` takes another for a running client."""

    #: TLS, proxy, pool and timeouts; read once, when the client is made.
    transport: TransportOptions = field(default_factory=TransportOptions)
    retry: RetryOptions = field(default_factory=RetryOptions)
    queue: QueueOptions = field(default_factory=QueueOptions)
    breaker: BreakerOptions = field(default_factory=BreakerOptions)
    adaptive: AdaptiveOptions = field(default_factory=AdaptiveOptions)
    cache: CacheOptions = field(default_factory=CacheOptions)
    #: Models to ask, in order, where the asked one can't answer.
    fallback_chain: tuple[str, ...] = ()
    #: Whole-request deadline where the request names none; None = no bound but the attempts' own.
    deadline_s: float | None = None
    #: Tokens of output to reserve where the caller gives no max_tokens.
    default_output_tokens: int = 1024
    #: Tokens of output that money is set aside for there: no model of the usual lists answers with more.
    unbounded_output_tokens: int = 16_384
    #: Ask for the usage event of streams whose caller did not, and keep it from the caller. Without it the whole
    #: reserve of such a stream is booked.
    ask_stream_usage: bool = True
    #: Limits of single models by their names (`NAME/MODEL` of another upstream), and of upstreams' models together
    #: by the upstreams' names; read once, when the client is made.
    model_limits: Mapping[str, ModelLimits] = field(default_factory=dict)
    #: Share of new traces that are written; None: no spans are, and a caller's `traceparent` passes as it is.
    trace_share: float | None = None
    #: Merge embedding requests that come within a few milliseconds.
    merge_embeddings: bool = True
