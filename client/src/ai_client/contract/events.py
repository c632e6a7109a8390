"""One typed stream of what happens, from which metrics, logs and the audit trail are made.

No event holds a key, a message or any other text of the caller: only names, numbers and a key's fingerprint.
Structs of msgspec: one is made in a tenth of the time that a frozen dataclass takes. Still, senders ask
`stream.active` first: with no listener nothing is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from ai_client.contract.request import Importance, Usage


class RequestEvent(Struct, frozen=True, kw_only=True):
    """Of one request. `at` is wall-clock time in seconds since the epoch."""

    at: float
    request_id: str
    tenant: str
    model: str
    endpoint: str


class Admitted(RequestEvent, frozen=True, kw_only=True):
    """An attempt was admitted after `waited_s` in the queue."""

    priority: int
    waited_s: float
    reserved_tokens: int


class Sent(RequestEvent, frozen=True, kw_only=True):
    """An attempt was written to a connection. The first is 1."""

    attempt: int
    key_fingerprint: str


class FirstByte(RequestEvent, frozen=True, kw_only=True):
    """The first chunk of a streamed answer arrived, `after_s` after the attempt was sent."""

    after_s: float


class Retried(RequestEvent, frozen=True, kw_only=True):
    """Attempt number `attempt` failed with `error` (a class name), and is retried after `wait_s`."""

    attempt: int
    wait_s: float
    error: str
    status: int | None


class FellBack(RequestEvent, frozen=True, kw_only=True):
    """`model` could not answer, so `to_model` is tried instead."""

    to_model: str
    error: str


class CacheHit(RequestEvent, frozen=True, kw_only=True):
    """The answer came from the cache or, if `shared`, from another request's call."""

    shared: bool


class CacheMissed(RequestEvent, frozen=True, kw_only=True):
    """The cache had no answer."""


class Settled(RequestEvent, frozen=True, kw_only=True):
    """The request was answered. This or `Failed` is the last event of a request."""

    status: int
    stream: bool
    cached: bool
    attempts: int
    usage: Usage | None
    cost_usd: float | None
    #: Whole time, its part in the queue and between retries, and its part upstream. The rest is our own overhead.
    latency_s: float
    waited_s: float
    upstream_s: float
    #: To the first byte of a stream.
    first_byte_s: float | None
    key_fingerprint: str
    importance: Importance | None
    cost_tags: Mapping[str, str]
    #: What the caller asked for, where routing or fallback changed it.
    asked_model: str
    #: The caller's trace, as W3C writes it; "" where it has none.
    traceparent: str = ""


class Failed(RequestEvent, frozen=True, kw_only=True):
    """The request failed with `error` (a class name; `CancelledError` if the caller left)."""

    error: str
    code: str
    status: int | None
    stream: bool
    attempts: int
    latency_s: float
    waited_s: float
    upstream_s: float
    key_fingerprint: str
    importance: Importance | None
    cost_tags: Mapping[str, str]
    #: Booked as billed-unknown, in US dollars at most.
    billed_unknown: bool
    asked_model: str
    traceparent: str = ""


class Throttled(Struct, frozen=True, kw_only=True):
    """The upstream (429, Retry-After, x-ratelimit-*) paused `model` for this key, for `pause_s`."""

    at: float
    model: str
    key_fingerprint: str
    pause_s: float
    #: Requests per second that it resumes with; None = unpaced.
    rate_per_s: float | None


class BreakerChanged(Struct, frozen=True, kw_only=True):
    """A model's circuit breaker changed state ("closed", "open", "half-open")."""

    at: float
    model: str
    before: str
    after: str


class ConcurrencyChanged(Struct, frozen=True, kw_only=True):
    """The adaptive concurrency limit of a model changed."""

    at: float
    model: str
    before: int
    after: int


class BudgetAlert(Struct, frozen=True, kw_only=True):
    """A budget passed the share `threshold` of `limit_usd`. Sent once for each period and threshold.

    `by_all_hosts`: hosts share it, `spent_usd` is what all of them spent, and one of them sends this.
    """

    at: float
    scope: str
    period: str
    limit_usd: float
    spent_usd: float
    threshold: float
    by_all_hosts: bool = False


class StoreDegraded(Struct, frozen=True, kw_only=True):
    """A `store` (cache, ledger, audit, traces) failed. `reason` contains no text from callers."""

    at: float
    store: str
    reason: str


class KeyRotated(Struct, frozen=True, kw_only=True):
    """Another key is now in use."""

    at: float
    before_fingerprint: str
    after_fingerprint: str


Event: TypeAlias = (
    Admitted
    | Sent
    | FirstByte
    | Retried
    | FellBack
    | CacheHit
    | CacheMissed
    | Settled
    | Failed
    | Throttled
    | BreakerChanged
    | ConcurrencyChanged
    | BudgetAlert
    | StoreDegraded
    | KeyRotated
)
Listener: TypeAlias = Callable[[Event], None]
#: What listens to each kind, and what listens to every other one.
_Subscription: TypeAlias = tuple[Mapping[type[Any], Callable[[Any], None]], Listener | None]


class EventStream:
    """Hands every event to those who listen to its kind, in order, on the thread that emits it.

    Listeners must be quick and must not raise: what they raise goes to whoever emitted.
    """

    __slots__ = ("_by_kind", "_subscriptions", "_to_all", "active")

    def __init__(self) -> None:
        self._subscriptions: tuple[_Subscription, ...] = ()
        #: Of the kinds that somebody asked for, all their listeners; and those of every other kind.
        self._by_kind: dict[type[Any], tuple[Listener, ...]] = {}
        self._to_all: tuple[Listener, ...] = ()
        #: Whether anybody listens; ask before building an event.
        self.active = False

    def subscribe(self, listener: Listener, *kinds: type[Any]) -> Callable[[], None]:
        """From now on `listener` gets every event, or those of `kinds` alone; call what is returned to end that."""
        return self._add((dict.fromkeys(kinds, listener), None if kinds else listener))

    def subscribe_each(self, listeners: Mapping[type[Any], Callable[[Any], None]]) -> Callable[[], None]:
        """The same with a listener of its own for each kind: nobody looks at a request's events twice."""
        return self._add((listeners, None))

    def _add(self, subscription: _Subscription) -> Callable[[], None]:
        self._set((*self._subscriptions, subscription))

        def unsubscribe() -> None:
            self._set(tuple(each for each in self._subscriptions if each is not subscription))

        return unsubscribe

    def wants(self, kind: type[Any]) -> bool:
        """Whether anybody listens to a kind; ask before building an event that comes with every request."""
        return bool(self._by_kind.get(kind, self._to_all))

    def emit(self, event: Event) -> None:
        for listener in self._by_kind.get(type(event), self._to_all):
            listener(event)

    def _set(self, subscriptions: tuple[_Subscription, ...]) -> None:
        self._subscriptions = subscriptions
        self._by_kind = {
            kind: tuple(
                listener for listeners, other in subscriptions if (listener := listeners.get(kind, other))
            )
            for kind in frozenset[type[Any]]().union(*(listeners for listeners, _ in subscriptions))
        }
        self._to_all = tuple(other for _, other in subscriptions if other is not None)
        self.active = bool(subscriptions)
