"""Everything that is kept of one model with one key: throttle, concurrency, breaker, token rate."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ai_client.admission.breaker import CircuitBreaker
from ai_client.admission.concurrency import AdaptiveConcurrency
from ai_client.admission.lane import Lane
from ai_client.admission.throttle import Throttle
from ai_client.contract.keys import ApiKey
from ai_client.contract.options import ClientOptions, Limits
from ai_client.dialects.token_estimate import TokenRate
from ai_client.platform.clock import Clock

#: Callers may name any model: beyond this many lanes those that nobody uses are forgotten.
MOST_LANES = 256


class ModelState:
    """What is known of a model, whatever the key."""

    __slots__ = ("breaker", "concurrency", "is_known", "rate", "takes_stream_options")

    def __init__(self, options: ClientOptions, max_concurrent: int) -> None:
        self.breaker = CircuitBreaker(options.breaker)
        self.rate = TokenRate()
        #: Whether it ever answered: names that callers make up never do.
        self.is_known = False
        #: Until it refuses them: some servers know no `stream_options`.
        self.takes_stream_options = True
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
    """All lanes, made as they are asked for, and kept in the order of their last use.

    Invariant: at most `MOST_LANES`, and those in flight beyond that; a model's state lives as long as a lane of it.
    """

    def __init__(self, options: ClientOptions, limits: Limits, *, random_source: random.Random) -> None:
        self._options = options
        self._limits = limits
        self._random = random_source
        self._lanes: dict[tuple[str, str], ModelLane] = {}
        self._models: dict[str, ModelState] = {}

    def lane(self, model: str, key: ApiKey) -> ModelLane:
        lanes, name = self._lanes, (model, key.fingerprint)
        lane = lanes.pop(name, None)
        if lane is None:
            return self._make(model, key.fingerprint)
        lanes[name] = lane
        return lane

    def known(self, model: str, key_fingerprint: str) -> ModelLane | None:
        """The lane, where there is one; asking is no use of it."""
        return self._lanes.get((model, key_fingerprint))

    def parked(self, *, clock: Clock) -> list[list[str | float]]:
        """Which model and key (by its fingerprint) is paused, until when, and until when its upstream asked.

        In wall-clock time, for `park` in the next process.
        """
        now_s = clock.monotonic()
        offset_s = clock.wall() - now_s
        return [
            [*name, lane.throttle.paused_until_s + offset_s, lane.throttle.asked_until_s + offset_s]
            for name, lane in self._lanes.items()
            if lane.throttle.paused_until_s > now_s
        ]

    def park(self, told: object, *, clock: Clock) -> None:
        """Pauses what a process before this one had paused; what makes no sense is left out."""
        now_s = clock.monotonic()
        offset_s = clock.wall() - now_s
        for each in told[:MOST_LANES] if isinstance(told, list) else ():
            match each:
                case [str() as model, str() as key, (int() | float()) as until, (int() | float()) as asked]:
                    lane = self.known(model, key) or self._make(model, key)
                    lane.throttle.pause(now_s, until_s=until - offset_s, asked_until_s=asked - offset_s)

    def model(self, name: str) -> ModelState:
        state = self._models.get(name)
        if state is None:
            state = self._models[name] = ModelState(self._options, self._limits.max_concurrent)
        return state

    def _make(self, model: str, key_fingerprint: str) -> ModelLane:
        while len(self._lanes) >= MOST_LANES and self._forget_one():
            pass
        throttle = Throttle(full_rate_per_s=_full_rate_per_s(self._limits), random_source=self._random)
        lane = ModelLane(model, key_fingerprint, throttle=throttle, state=self.model(model))
        self._lanes[(model, key_fingerprint)] = lane
        return lane

    def _forget_one(self) -> bool:
        """The one used longest ago, of the models that never answered if there are any. False: all are busy."""
        idle = [name for name, lane in self._lanes.items() if not lane.in_flight]
        made_up = (name for name in idle if not self._lanes[name].state.is_known)
        victim = next(made_up, None) or next(iter(idle), None)
        if victim is None:
            return False
        del self._lanes[victim]
        if not any(model == victim[0] for model, _ in self._lanes):
            del self._models[victim[0]]
        return True

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
