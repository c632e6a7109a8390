"""The load: so many at once (closed loop), or at a rate whatever the answers do (open loop)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ai_client.bench.measure import Sample

_TOPICS = (
    "invoices",
    "sensors",
    "contracts",
    "rivers",
    "recipes",
    "engines",
    "letters",
    "maps",
    "trains",
    "music",
)


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent. `rate_rps` None keeps `at_once` under way instead. `repeat_share` of the requests repeat others."""

    requests: int
    at_once: int
    rate_rps: float | None
    model: str
    max_tokens: int
    is_streamed: bool
    repeat_share: float
    max_usd: float
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a provider says of one request."""

    code: str
    cost_usd: float
    is_cached: bool
    first_byte_s: float | None = None


class Provider(Protocol):
    """Somebody who answers."""

    name: str

    async def ask(self, body: dict[str, Any]) -> Outcome:
        """Send one request; its failures are outcomes."""
        ...


def bodies(load: Load) -> list[dict[str, Any]]:
    """The requests of a run: the same for every provider, and new for every seed, so that no cache knows them."""
    source = random.Random(load.seed)  # noqa: S311  a mixture, no secret
    made: list[dict[str, Any]] = []
    for number in range(load.requests):
        if made and source.random() < load.repeat_share:
            made.append(source.choice(made))
            continue
        topic = source.choice(_TOPICS)
        text = f"In one sentence, what is worth knowing about {topic}? (question {load.seed}-{number})"
        body: dict[str, Any] = {
            "model": load.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": load.max_tokens,
        }
        # What a stream cost is known from its usage alone: its headers come before it does.
        streamed = {"stream": True, "stream_options": {"include_usage": True}}
        made.append(body | streamed if load.is_streamed else body)
    return made


def outlook(load: Load, requests_per_minute: int | None) -> str:
    """How long a run takes at least, by the limit of requests; "" where that does not hold it up for a minute.

    A window lets its whole limit through at once, and then again a minute later. Repeats come from the cache.
    """
    new = len({str(body["messages"]) for body in bodies(load)})
    minutes = (new - 1) // requests_per_minute if requests_per_minute else 0
    if not minutes:
        return ""
    plural = "" if minutes == 1 else "s"
    return (
        f"{load.requests} requests, {new} of them new, at {requests_per_minute} a minute: "
        f"{minutes} minute{plural} or more; --requests for fewer"
    )


async def drive(
    load: Load,
    provider: Provider,
    *,
    clock: Callable[[], float] = time.perf_counter,
    seen: Callable[[int], None] | None = None,
) -> tuple[list[Sample], float]:
    """Send it all: the samples, and how long it took in seconds. Stops early where it has cost `max_usd`.

    `seen` is told how many are done, after each.
    """
    samples: list[Sample] = []
    began_s = clock()

    async def one(body: dict[str, Any]) -> None:
        sent_s = clock()
        outcome = await provider.ask(body)
        samples.append(
            Sample(
                began_s=sent_s - began_s,
                took_s=clock() - sent_s,
                code=outcome.code,
                cost_usd=outcome.cost_usd,
                is_cached=outcome.is_cached,
                first_byte_s=outcome.first_byte_s,
            )
        )
        if seen is not None:
            seen(len(samples))

    def is_affordable() -> bool:
        return sum(sample.cost_usd for sample in samples) < load.max_usd

    loop = _open if load.rate_rps else _closed
    await loop(load, one, is_affordable)
    return samples, clock() - began_s


async def _closed(
    load: Load, one: Callable[[dict[str, Any]], Awaitable[None]], go_on: Callable[[], bool]
) -> None:
    waiting = iter(bodies(load))

    async def worker() -> None:
        for body in waiting:
            if not go_on():
                return
            await one(body)

    await asyncio.gather(*(worker() for _ in range(load.at_once)))


async def _open(
    load: Load, one: Callable[[dict[str, Any]], Awaitable[None]], go_on: Callable[[], bool]
) -> None:
    """Arrivals are evenly spread; a late answer delays none, which is what makes overload visible."""
    rate = load.rate_rps or 1.0
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with asyncio.TaskGroup() as group:
        for number, body in enumerate(bodies(load)):
            wait_s = began_s + number / rate - loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            if not go_on():
                return
            group.create_task(_run(one, body))


async def _run(one: Callable[[dict[str, Any]], Awaitable[None]], body: dict[str, Any]) -> None:
    await one(body)
