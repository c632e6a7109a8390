"""What a host's side needs of the engine, and how long it asks again where that does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NoReturn, Protocol, TypeVar

from ai_client.batch.shared.sealing import BatchSeal, HostKey
from ai_client.coordination.batch_protocol import (
    Addition,
    BatchState,
    Begun,
    Chunk,
    Hold,
    InFlight,
    Kept,
    NewBatch,
    NewChunk,
    Page,
)
from ai_client.coordination.endpoint import EngineError

#: For so long a command asks an engine that is away, as during a failover.
ABSENCE_S = 120.0
RETRY_S = 1.0
#: And one that refuses: what it refuses may be changed in this moment, as a password is.
REFUSAL_S = 3.0

Wait = Callable[[float], Awaitable[None]]
#: Hears of each call that gave no answer and is made again.
Told = Callable[[EngineError], None]
_T = TypeVar("_T")


def to_nobody(_: EngineError) -> None:
    """Hears nothing."""


class BatchEngine(Protocol):
    """`BatchLink`, or what stands for it. Each call may be repeated, and raises EngineError."""

    async def open(self, new: NewBatch) -> str: ...

    async def wrap(self, batch: str, key: str, sealed: bytes) -> None: ...

    async def look(self, batch: str) -> BatchState | None: ...

    async def index(self) -> dict[str, str]: ...

    async def add(self, batch: str, new: NewChunk, *, room_bytes: int) -> Addition: ...

    async def close_batch(self, batch: str, offset: int) -> bool: ...

    async def take(self, consumer: str, *, idle_ms: int) -> Chunk | None: ...

    async def begin(self, consumer: str, chunk: Chunk) -> Begun: ...

    async def hold(self, consumer: str, chunk: Chunk) -> Hold: ...

    async def answer(self, chunk: Chunk, line: int, result: bytes, *, failed: bool) -> Kept: ...

    async def release(self, consumer: str, chunk: Chunk) -> None: ...

    async def page(
        self, batch: str, output: bytes, token: str, *, takes_over: bool, most: int, room_bytes: int
    ) -> Page: ...

    async def drop(self, batch: str, token: str, lines: Sequence[int]) -> int: ...

    async def cancel(self, batch: str) -> bool: ...

    async def finish(self, batch: str) -> bool: ...

    async def discard(self, batch: str, name: str) -> None: ...

    async def flight(self, batch: str, *, idle_ms: int) -> InFlight: ...


class BatchError(Exception):
    """A command about a shared batch can't be done; the text names the culprit, the reason and the remedy."""


async def patiently(
    call: Callable[[], Awaitable[_T]],
    *,
    wait: Wait = asyncio.sleep,
    absence_s: float = ABSENCE_S,
    told: Told = to_nobody,
) -> _T:
    """The answer to a call, asked again for a while where the engine gives none. Raises EngineError."""
    waited_s = 0.0
    while True:
        try:
            return await call()
        except EngineError as exc:
            if waited_s >= (min(REFUSAL_S, absence_s) if exc.is_lasting else absence_s):
                raise
            told(exc)
        waited_s += RETRY_S
        await wait(RETRY_S)


async def found(
    engine: BatchEngine, name: str, *, wait: Wait = asyncio.sleep, told: Told = to_nobody
) -> BatchState:
    """The batch of a name. Raises BatchError where there is none, and EngineError."""
    index = await patiently(engine.index, wait=wait, told=told)
    batch = batch_of(index, name)
    state = await patiently(lambda: engine.look(batch), wait=wait, told=told)
    return state or no_batch(index, name)


def batch_of(index: Mapping[str, str], name: str) -> str:
    """The id of the batch of a name. Raises BatchError where there is none."""
    return index[name] if name in index else no_batch(index, name)


def no_batch(index: Mapping[str, str], name: str) -> NoReturn:
    """Says which there are."""
    known = ", ".join(sorted(set(index) - {name})) or "none"
    raise BatchError(f"there is no batch {name!r} in the engine; there are: {known}")


async def tend(
    engine: BatchEngine, state: BatchState, keys: Sequence[HostKey], *, now: Sequence[HostKey]
) -> None:
    """Seals a batch's key with those of `now` that it lacks, by any of `keys`: so it outlives a change of the key.

    Raises EngineError, and SealError where none of them unseals it.
    """
    missing = [key for key in now if key.name not in state.keys]
    if missing:
        seal = BatchSeal.from_keys(state.batch, state.keys, keys)
        for name, sealed in seal.for_keys(missing).items():
            await engine.wrap(state.batch, name, sealed)
