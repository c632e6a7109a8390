"""Everything that is kept of one model with one key: throttle, concurrency, breaker, token rate."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ai_client.adaptive import AdaptiveConcurrency
from ai_client.breaker import CircuitBreaker
from ai_client.estimate import TokenRate
from ai_client.keys import ApiKey
from ai_client.options import ClientOptions, Limits
from ai_client.scheduler import Lane
from ai_client.throttle import Throttle

# Callers may name any model: those that nobody uses are forgotten beyond this many.
_MOST_LANES = 256


class ModelState:
    """What is known of a model, whatever the key."""

    __slots__ = ("breaker", "concurrency", "rate")

    def __init__(self, options: ClientOptions, max_concurrent: int) -> None:
        self.breaker = CircuitBreaker(options.breaker)
        self.rate = TokenRate()
        self.concurrency = AdaptiveConcurrency(
            max_limit=max_concurrent,
            min_limit=options.adaptive.min_limit,
            enabled=options.adaptive.enabled,
        )


class ModelLane(Lane):
    """A lane of the scheduler, with its model's state."""

    __slots__ = ("adaptive", "state")

    def __init__(self, model: str, key_fingerprint: str, *, throttle: Throttle, state: ModelState) -> None:
        super().__init__(model, key_fingerprint, throttle=throttle, concurrency=state.concurrency)
        self.state = state
        self.adaptive = state.concurrency


class Lanes:
    """All lanes, made as they are asked for."""

    def __init__(self, options: ClientOptions, limits: Limits, *, random_source: random.Random) -> None:
        self._options = options
        self._limits = limits
        self._random = random_source
        self._lanes: dict[tuple[str, str], ModelLane] = {}
        self._models: dict[str, ModelState] = {}

    def lane(self, model: str, key: ApiKey) -> ModelLane:
        lane = self._lanes.get((model, key.fingerprint))
        return lane if lane is not None else self._make(model, key)

    def model(self, name: str) -> ModelState:
        state = self._models.get(name)
        if state is None:
            state = self._models[name] = ModelState(self._options, self._limits.max_concurrent)
        return state

    def _make(self, model: str, key: ApiKey) -> ModelLane:
        if len(self._lanes) >= _MOST_LANES:
            self._lanes = {name: lane for name, lane in self._lanes.items() if lane.in_flight}
            used = {name for name, _ in self._lanes}
            self._models = {name: state for name, state in self._models.items() if name in used}
        throttle = Throttle(full_rate_per_s=_full_rate_per_s(self._limits), random_source=self._random)
        lane = ModelLane(model, key.fingerprint, throttle=throttle, state=self.model(model))
        self._lanes[(model, key.fingerprint)] = lane
        return lane

    def reconfigure(self, options: ClientOptions, limits: Limits) -> None:
        """New limits for those that there are, and for those to come."""
        self._options = options
        self._limits = limits
        for lane in self._lanes.values():
            lane.throttle.full_rate_per_s = _full_rate_per_s(limits)
        for state in self._models.values():
            state.concurrency.set_max(limits.max_concurrent)

    def models(self) -> Iterator[tuple[str, ModelState]]:
        return iter(self._models.items())


def _full_rate_per_s(limits: Limits) -> float | None:
    return None if limits.requests_per_minute is None else limits.requests_per_minute / 60.0
