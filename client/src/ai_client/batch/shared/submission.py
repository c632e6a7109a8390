"""Puts the lines of a file into the engine, as far as there is room, and goes on where it was interrupted."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from ai_client.batch.shared.chunks import Identity, ReadChunk, Stamp, read_chunks
from ai_client.batch.shared.engine import BatchEngine, BatchError, Told, Wait, patiently, tend, to_nobody
from ai_client.batch.shared.sealing import BatchSeal, HostKey
from ai_client.batch.source import InputError
from ai_client.coordination.batch_protocol import Added, Addition, BatchState, BatchTerms, NewBatch, NewChunk
from ai_client.coordination.endpoint import EngineFullError

ROOM_WAIT_S = 1.0
_T = TypeVar("_T")
IDENTITY = "input"
_LOST = "is gone: it was discarded, or the engine was emptied; run the same command again to submit it anew"


def chunk_about(first: int, last: int) -> str:
    """What a chunk's seal is bound to."""
    return f"lines {first} to {last}"


@dataclass(frozen=True, slots=True)
class SubmissionPlan:
    """What to submit. `keys`: this host's, the one in use first; `told` hears where the engine gives no answer."""

    source: Path
    name: str
    host: str
    keys: Sequence[HostKey]
    max_line_bytes: int
    now_s: int
    terms: BatchTerms = field(default_factory=BatchTerms)
    told: Told = to_nobody


class Submission:
    """One run of a submission; `state` is the newest that is known, `is_waiting` whether there is no room."""

    def __init__(self, plan: SubmissionPlan, engine: BatchEngine, *, wait: Wait = asyncio.sleep) -> None:
        self._plan = plan
        self._engine = engine
        self._wait = wait
        self._stamp: Stamp | None = None
        self.state: BatchState | None = None
        self.offset = 0
        self.size = 0
        self.is_waiting = False

    async def run(self) -> BatchState:
        """Submits what is not there yet. Idempotent. Raises InputError, BatchError, SealError, EngineError."""
        self._stamp = Stamp.of(self._plan.source)
        identity = Identity.of(self._plan.source)
        self.size = identity.size
        state, seal = await self._opened(identity)
        if not self._is_of(identity, state, seal):
            remedy = "name this one otherwise with --name, or use the same input"
            raise BatchError(f"a batch {state.name!r} of another input is in the engine; {remedy}")
        await tend(self._engine, state, self._plan.keys, now=self._plan.keys)
        while not (state.is_closed or state.is_cancelled or state.is_ended):
            offset = await self._add_all(state, seal)
            if offset is not None:
                await self._call(partial(self._engine.close_batch, state.batch, offset))
            state = await self._look(state.batch)
        return state

    async def _opened(self, identity: Identity) -> tuple[BatchState, BatchSeal]:
        """The batch of this name; one that has ended with another input makes room."""
        name = self._plan.name
        index = await self._call(self._engine.index)
        batch = index.get(name)
        if batch is not None:
            state = await self._call(partial(self._engine.look, batch))
            if state is not None:
                seal = BatchSeal.from_keys(batch, state.keys, self._plan.keys)
                if not state.is_ended or self._is_of(identity, state, seal):
                    return state, seal
            await self._call(partial(self._engine.discard, batch, name))
        state = await self._look(await self._begun(identity))
        return state, BatchSeal.from_keys(state.batch, state.keys, self._plan.keys)

    @staticmethod
    def _is_of(identity: Identity, state: BatchState, seal: BatchSeal) -> bool:
        return Identity.from_bytes(seal.unseal(state.identity, IDENTITY)) == identity

    async def _begun(self, identity: Identity) -> str:
        """Begins a batch: the id of the one that has the name now."""
        batch = secrets.token_hex(8)
        seal = BatchSeal.new(batch)
        new = NewBatch(
            self._plan.name,
            batch,
            self._plan.now_s,
            self._plan.host,
            seal.seal(identity.as_bytes(), IDENTITY),
            seal.for_keys(self._plan.keys),
        )
        return await self._call(lambda: self._engine.open(new))

    async def _look(self, batch: str) -> BatchState:
        self.state = await self._call(lambda: self._engine.look(batch))
        if self.state is None:
            raise BatchError(f"the batch {self._plan.name!r} {_LOST}")
        return self.state

    async def _add_all(self, state: BatchState, seal: BatchSeal) -> int | None:
        """Adds chunks from where the books are: the offset at the end, None where they are elsewhere."""
        self.offset = state.offset
        chunks = read_chunks(
            self._plan.source,
            offset=state.offset,
            last=state.last,
            max_line_bytes=self._plan.max_line_bytes,
        )
        while (chunk := self._next(chunks)) is not None:
            sealed = seal.seal(chunk.packed, chunk_about(chunk.first, chunk.last))
            new = NewChunk(chunk.offset, chunk.end, chunk.first, chunk.last, chunk.count, sealed)
            if not await self._add(state.batch, new):
                return None
            self.offset = chunk.end
        return self.offset

    def _next(self, chunks: Iterator[ReadChunk]) -> ReadChunk | None:
        """The next chunk of an input that is still the one that the batch is known by. Raises InputError."""
        source, name = self._plan.source, self._plan.name
        try:
            chunk = next(chunks, None)
        except OSError as exc:
            remedy = "run the same command again when it can be read"
            raise InputError(f"{source} can't be read ({exc.strerror}); {remedy}") from exc
        if Stamp.of(source) != self._stamp:
            remedy = (
                f"discard it (`ai-client batch cancel {name} --discard`), and submit it when it is complete"
            )
            raise InputError(f"{source} changed while it was submitted; {remedy}")
        return chunk

    async def _add(self, batch: str, new: NewChunk) -> bool:
        while True:
            progress = await self._call(partial(self._added, batch, new))
            self.is_waiting = progress.added is Added.FULL
            if progress.added is Added.FULL:
                await self._wait(ROOM_WAIT_S)
                continue
            # An answer may have been lost: then it is where this chunk ends.
            return progress.added is Added.ADDED or (
                progress.added is Added.MOVED and progress.offset == new.end
            )

    async def _added(self, batch: str, new: NewChunk) -> Addition:
        """Whether the batch or the engine itself is full, `batch fetch` makes room: that may take any time."""
        try:
            return await self._engine.add(batch, new, room_bytes=self._plan.terms.room_bytes)
        except EngineFullError:
            return Addition(Added.FULL)

    async def _call(self, call: Callable[[], Awaitable[_T]]) -> _T:
        return await patiently(call, wait=self._wait, told=self._plan.told)
