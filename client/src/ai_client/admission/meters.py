"""Limits of single models and upstreams, before the one queue: who waits for a model holds up nobody else's.

Every limit is an exact sliding window, whose proof (`admission.window`) holds for each of them. Those who wait for the
same model go by priority, then in their order; nobody overtakes within a priority, so large requests are not starved.
One timer a model. Not thread-safe: one event loop owns it.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from msgspec import Struct

from ai_client.admission.meter_log import MeterLog
from ai_client.admission.window import WINDOW_S, SlidingWindow, WindowEntry
from ai_client.contract.limits import ModelLimits
from ai_client.errors import DeadlineExceeded
from ai_client.platform.clock import Clock, Timer

_DAY_S: Final = 86_400.0
_BURST: Final = "burst of "
#: Where no entry of a full window has an end yet: the next one written or given back is waited for, or this long.
_LOOK_AGAIN_S: Final = 1.0


class Cost(Struct, frozen=True):
    """What a request is likely to take."""

    input_tokens: int = 0
    output_tokens: int = 0
    images: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


AmountOf = Callable[[Cost], int]


class _Part:
    """One window, and what of a request counts in it.

    A guess above the whole limit is no reason to refuse: it takes all that there is, and owes the rest when it settles.
    """

    __slots__ = ("amount_of", "kind", "name", "region", "span_s", "window")

    def __init__(self, name: str, window: SlidingWindow, amount_of: AmountOf, *, span_s: float) -> None:
        #: What it counts, over which span: a window under another limit is the same one.
        self.name = f"{name}/{span_s:g}"
        self.kind = name.removeprefix(_BURST)
        self.span_s = span_s
        self.window = window
        self.amount_of = amount_of
        #: Where it is noted on disk, if it is.
        self.region: int | None = None

    def reserve_of(self, cost: Cost) -> int:
        amount, limit = self.amount_of(cost), self.window.limit_tokens
        return amount if limit is None else min(amount, limit)

    def fits(self, cost: Cost, now_s: float) -> bool:
        return self.window.fits(self.reserve_of(cost), now_s)


class MeterPermit:
    """A request's place in every window of its model. Give it back with `ended`, whatever happens."""

    __slots__ = ("_entries", "_meter", "_settles")

    def __init__(self, meter: Meter, entries: list[tuple[_Part, WindowEntry]], *, settles: bool) -> None:
        self._meter = meter
        self._entries = entries
        self._settles = settles

    def sent(self, now_s: float) -> None:
        """It is being written: its time in the windows begins."""
        for part, entry in self._entries:
            part.window.sent(entry, now_s)
            self._meter.note(part, sent_at_s=now_s, requests=1, tokens=entry.tokens)
        self._meter.serve()

    def settle(self, cost: Cost) -> None:
        """What it really used, where the provider counts that."""
        if not self._settles:
            return
        for part, entry in self._entries:
            used = part.amount_of(cost)
            if entry.was_sent:
                self._meter.note(part, sent_at_s=entry.sent_at_s, requests=0, tokens=used - entry.tokens)
            part.window.settle(entry, used)
        self._meter.serve()

    def ended(self) -> None:
        """One that was never written costs nothing. Idempotent."""
        for part, entry in self._entries:
            part.window.forget(entry)
        self._meter.serve()


class Meter:
    """The limits of one model, or of one upstream's models together."""

    def __init__(self, name: str, limits: ModelLimits, *, clock: Clock, network_delay_s: float) -> None:
        self.limits = limits
        self._name = name
        self._clock = clock
        self._delay_s = network_delay_s
        self._settles = not limits.by_estimate
        self._parts = _parts(limits, network_delay_s)
        self._log: MeterLog | None = None
        self._waiting: list[tuple[int, int, Cost, asyncio.Future[MeterPermit | DeadlineExceeded]]] = []
        self._count = 0
        self._timer: Timer | None = None

    async def acquire(self, cost: Cost, *, priority: int, deadline_at_s: float | None) -> MeterPermit:
        """Waits for room. Raises DeadlineExceeded."""
        now_s = self._clock.monotonic()
        if not self._waiting and self._fits(cost, now_s):
            return self._reserve(cost)
        future: asyncio.Future[MeterPermit | DeadlineExceeded] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._waiting, (priority, self._count, cost, future))
        self.serve()
        late = None
        if deadline_at_s is not None:
            error = DeadlineExceeded(
                f"request to {self._name}", deadline_s=deadline_at_s - now_s, phase="queue"
            )
            late = self._clock.call_at(deadline_at_s, partial(_answer, future, error))
        try:
            answer = await future
        except asyncio.CancelledError:
            if not future.cancelled() and isinstance(permit := future.result(), MeterPermit):
                permit.ended()
            self.serve()
            raise
        finally:
            if late is not None:
                late.cancel()
        if isinstance(answer, DeadlineExceeded):
            self.serve()
            raise answer
        return answer

    def reconfigure(self, limits: ModelLimits) -> None:
        """Other limits from now on. What was sent under those before counts on."""
        known = {part.name: part for part in self._parts}
        parts = []
        for fresh in _parts(limits, self._delay_s):
            part = known.get(fresh.name, fresh)
            part.window.set_limits(requests=fresh.window.limit_requests, tokens=fresh.window.limit_tokens)
            if part is fresh:
                self._fill(fresh)
            parts.append(part)
        self.limits, self._parts = limits, parts
        self._settles = not limits.by_estimate
        if self._log is not None:
            self.keep_in(self._log)
        self.serve()

    def _fill(self, fresh: _Part) -> None:
        """A window of another span begins with what the longest one holds that counts the same."""
        alike = [part for part in self._parts if part.kind == fresh.kind]
        if alike:
            longest = max(alike, key=lambda part: part.span_s)
            fresh.window.restore(longest.window.snapshot(clock=self._clock), clock=self._clock)
        elif self._log is not None:
            self._recall(fresh, self._log)

    def keep_in(self, log: MeterLog) -> None:
        """Notes there what is sent from now on."""
        self._log = log
        for part in self._parts:
            part.region = log.region(f"{self._name}/{part.name}")

    def note_again(self) -> None:
        """All that counts, by the wall clock as it is now."""
        for part in self._parts:
            if self._log is None or part.region is None:
                continue
            self._log.begin_again(part.region)
            for at_s, requests, tokens in part.window.sent_entries(clock=self._clock):
                self._log.add(
                    part.region, span_s=part.span_s, at_s=at_s, requests=int(requests), tokens=int(tokens)
                )

    def recall(self, log: MeterLog) -> None:
        """Counts what is noted there."""
        for part in self._parts:
            self._recall(part, log)

    def _recall(self, part: _Part, log: MeterLog) -> None:
        told = log.entries(f"{self._name}/{part.name}", span_s=part.span_s, now_s=self._clock.wall())
        if part.region is not None:
            part.window.forget_sent()  # it is noted there, with what others sent
        part.window.restore(told, clock=self._clock)

    def note(self, part: _Part, *, sent_at_s: float, requests: int, tokens: int) -> None:
        """On disk, where that is kept. `sent_at_s` is monotonic."""
        if self._log is None or part.region is None:
            return
        at_s = self._clock.wall() - self._clock.monotonic() + sent_at_s
        self._log.add(part.region, span_s=part.span_s, at_s=at_s, requests=requests, tokens=tokens)

    def snapshot(self) -> dict[str, Any]:
        """Of every window, by what it counts."""
        return {part.name: part.window.snapshot(clock=self._clock) for part in self._parts}

    def restore(self, told: Mapping[str, Any]) -> None:
        """Of the windows that there are."""
        for part in self._parts:
            state = told.get(part.name)
            if isinstance(state, Mapping):
                part.window.restore(state, clock=self._clock)

    def serve(self) -> None:
        """Lets those go who have room now, and sets the timer for the next."""
        now_s = self._clock.monotonic()
        while self._waiting:
            _, _, cost, future = self._waiting[0]
            if not future.done():
                if not self._fits(cost, now_s):
                    break
                future.set_result(self._reserve(cost))
            heapq.heappop(self._waiting)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            ends_s = [end_s for part in self._parts if (end_s := part.window.next_expiry_s()) is not None]
            coming_s = [end_s for end_s in ends_s if end_s > now_s]
            self._timer = self._clock.call_at(min(coming_s, default=now_s + _LOOK_AGAIN_S), self.serve)

    def _fits(self, cost: Cost, now_s: float) -> bool:
        return all(part.fits(cost, now_s) for part in self._parts)

    def _reserve(self, cost: Cost) -> MeterPermit:
        entries = [(part, WindowEntry(part.reserve_of(cost))) for part in self._parts]
        for part, entry in entries:
            part.window.reserve(entry)
        return MeterPermit(self, entries, settles=self._settles)


class Meters:
    """The meters of a client: of single models by their labels, and of all of an upstream's by its name."""

    def __init__(
        self,
        limits: Mapping[str, ModelLimits],
        *,
        clock: Clock,
        network_delay_s: float,
        before: Meters | None = None,
    ) -> None:
        """`before`: those of a client that this one succeeds, which go on counting under the limits that hold now."""
        known: dict[str, Meter] = {} if before is None else before._meters
        self._log: MeterLog | None = None if before is None else before._log
        self._meters: dict[str, Meter] = {}
        for name, each in limits.items():
            meter = known.get(name)
            if meter is None:
                meter = Meter(name, each, clock=clock, network_delay_s=network_delay_s)
                if self._log is not None:
                    meter.recall(self._log)
                    meter.keep_in(self._log)
            elif meter.limits != each:
                meter.reconfigure(each)
            self._meters[name] = meter

    def keep_in(self, log: MeterLog) -> None:
        """Notes there what is sent from now on."""
        self._log = log
        for meter in self._meters.values():
            meter.keep_in(log)

    def note_again(self) -> None:
        """The wall clock was set: what is noted has to be by the new one."""
        for meter in self._meters.values():
            meter.note_again()

    def recall(self, log: MeterLog) -> None:
        """Counts what processes before this one noted there."""
        for meter in self._meters.values():
            meter.recall(log)

    def snapshot(self) -> dict[str, Any]:
        """What counts now, for `restore` in the next process."""
        return {name: meter.snapshot() for name, meter in self._meters.items()}

    def restore(self, state: object) -> None:
        """Counts what a snapshot holds; of windows that are no more, or of nonsense, nothing."""
        for name, told in state.items() if isinstance(state, Mapping) else ():
            meter = self._meters.get(name)
            if meter is not None and isinstance(told, Mapping):
                meter.restore(told)

    @property
    def is_empty(self) -> bool:
        """Whether no model has limits of its own."""
        return not self._meters

    async def acquire(
        self, *, label: str, upstream: str, cost: Cost, priority: int, deadline_at_s: float | None
    ) -> list[MeterPermit]:
        """A permit of every meter that counts the request: its model's, then its upstream's.

        Who waits for the second holds a place of the first, which is then a model's own, and takes none of others.
        """
        permits: list[MeterPermit] = []
        try:
            for name in dict.fromkeys((label, upstream)):
                meter = self._meters.get(name)
                if meter is not None:
                    permits.append(await meter.acquire(cost, priority=priority, deadline_at_s=deadline_at_s))
        except BaseException:
            for permit in permits:
                permit.ended()
            raise
        return permits


def _answer(
    future: asyncio.Future[MeterPermit | DeadlineExceeded], answer: MeterPermit | DeadlineExceeded
) -> None:
    if not future.done():
        future.set_result(answer)


def _parts(limits: ModelLimits, network_delay_s: float) -> list[_Part]:
    def part(
        name: str, amount_of: AmountOf, *, requests: int | None, tokens: int | None, span_s: float = WINDOW_S
    ) -> _Part:
        window = SlidingWindow(
            limit_requests=requests, limit_tokens=tokens, network_delay_s=network_delay_s, window_s=span_s
        )
        return _Part(name, window, amount_of, span_s=span_s)

    rpm, burst_s = limits.requests_per_minute, limits.burst_s
    kinds: list[tuple[str, int | None, AmountOf]] = [
        ("tokens", limits.tokens_per_minute, lambda cost: cost.tokens),
        ("input_tokens", limits.input_tokens_per_minute, lambda cost: cost.input_tokens),
        ("output_tokens", limits.output_tokens_per_minute, lambda cost: cost.output_tokens),
        ("images", limits.images_per_minute, lambda cost: cost.images),
    ]
    limited = [(name, limit, amount_of) for name, limit, amount_of in kinds if limit is not None]
    parts = [part(name, amount_of, requests=None, tokens=limit) for name, limit, amount_of in limited]
    if rpm is not None:
        parts.append(part("requests", _nothing, requests=rpm, tokens=None))
    if limits.requests_per_day is not None or limits.tokens_per_day is not None:
        per_day, tokens_per_day = limits.requests_per_day, limits.tokens_per_day
        parts.append(
            part("day", lambda cost: cost.tokens, requests=per_day, tokens=tokens_per_day, span_s=_DAY_S)
        )
    if burst_s is not None:
        share = burst_s / WINDOW_S
        if rpm is not None:
            most = max(1, int(rpm * share))
            parts.append(part(f"{_BURST}requests", _nothing, requests=most, tokens=None, span_s=burst_s))
        for name, limit, amount_of in limited:
            most = max(1, int(limit * share))
            parts.append(part(f"{_BURST}{name}", amount_of, requests=None, tokens=most, span_s=burst_s))
    return parts


def _nothing(cost: Cost) -> int:
    """Where requests count, and nothing of them."""
    return 0
