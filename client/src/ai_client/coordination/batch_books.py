"""The engine's side of shared batches, as a pure state machine. `batches.lua` is the same, held to it by tests.

Invariants, in any order of any calls, lost or repeated:
- a line that has a result keeps it: a second one is thrown away, also after the first was fetched;
- a chunk leaves the stream only when each of its lines has a result, or its batch is cancelled or gone;
- what a call says of an entry counts only while that entry is that chunk: a failover numbers entries anew;
- each part of an input is added once: a chunk must begin where the one before it ended;
- a name leads to one batch at a time, and a batch is known by an id that is never used again.
Only the idle time of a held chunk is measured by the engine's clock: a jump hands chunks out early, so that lines are
sent twice, and never gives a line two results.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

from ai_client.coordination.batch_protocol import (
    Added,
    Addition,
    BatchState,
    Begun,
    Chunk,
    Fetch,
    Hold,
    InFlight,
    Kept,
    NewBatch,
    NewChunk,
    Page,
)

#: A chunk that was given back counts as idle for so long.
RELEASED_MS = 86_400_000


@dataclass(slots=True)
class SharedBatch:
    """One batch."""

    state: BatchState
    chunks: dict[int, bytes] = field(default_factory=dict)
    chunks_added: int = 0
    done: set[int] = field(default_factory=set)
    results: dict[int, bytes] = field(default_factory=dict)
    token: str = ""
    #: Since when chunks of it wait.
    waits_since_ms: int = 0

    def change(self, **changes: int | bool) -> None:
        """Some facts of the state."""
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]  # by their names

    def is_done(self, chunk: Chunk) -> bool:
        """Whether each line of a chunk has a result."""
        return sum(number in self.done for number in range(chunk.first, chunk.last + 1)) == chunk.count


@dataclass(slots=True)
class _Held:
    """Who holds an entry, and since when it was silent."""

    consumer: str
    since_ms: int


@dataclass(slots=True)
class BatchBooks:
    """All batches of one account."""

    names: dict[str, str] = field(default_factory=dict)
    batches: dict[str, SharedBatch] = field(default_factory=dict)
    #: The stream, and those of its entries that somebody was given.
    stream: dict[str, Chunk] = field(default_factory=dict)
    held: dict[str, _Held] = field(default_factory=dict)
    entries: int = 0
    #: When each process last asked for a chunk, or held one.
    asked_at_ms: dict[str, int] = field(default_factory=dict)

    def copy(self) -> BatchBooks:
        """As a replica or a dump has it."""
        return copy.deepcopy(self)

    def _working(self, batch: str) -> SharedBatch | None:
        """A batch that has not ended."""
        found = self.batches.get(batch)
        return None if found is None or found.state.is_ended else found

    def open(self, new: NewBatch) -> str:
        """Begins a batch, unless its name is taken: the id of the one that has it."""
        there = self.names.get(new.name)
        if there is not None:
            return there
        self.names[new.name] = new.batch
        self.batches[new.batch] = SharedBatch(
            BatchState(new.name, new.batch, new.opened_at_s, new.host, new.identity, dict(new.keys))
        )
        return new.batch

    def wrap(self, batch: str, key: str, sealed: bytes) -> None:
        """Adds the batch's key, sealed with another key."""
        found = self.batches.get(batch)
        if found is not None:
            found.state = replace(found.state, keys={**found.state.keys, key: sealed})

    def look(self, batch: str) -> BatchState | None:
        """How a batch stands."""
        found = self.batches.get(batch)
        return None if found is None else replace(found.state, results=len(found.results))

    def index(self) -> dict[str, str]:
        """The batches' ids by name."""
        return dict(self.names)

    def add(self, batch: str, new: NewChunk, *, room_bytes: int, now_ms: int = 0) -> Addition:
        """Adds a chunk, where the input is at its offset and there is room."""
        found = self._working(batch)
        if found is None:
            return Addition(Added.GONE)
        state = found.state
        added = self._may_add(state, new, room_bytes)
        if added is not Added.ADDED:
            return Addition(added, state.offset, state.last)
        found.chunks_added += 1
        found.chunks[found.chunks_added] = new.sealed
        if state.open_chunks == 0:
            found.waits_since_ms = now_ms
        found.change(
            offset=new.end, last=new.last, lines=state.lines + new.count,
            open_chunks=state.open_chunks + 1, size_bytes=state.size_bytes + len(new.sealed),
        )  # fmt: skip
        self.entries += 1
        entry = f"0-{self.entries}"
        self.stream[entry] = Chunk(entry, batch, found.chunks_added, new.first, new.last, new.count)
        return Addition(added, new.end, new.last)

    @staticmethod
    def _may_add(state: BatchState, new: NewChunk, room_bytes: int) -> Added:
        if state.is_cancelled:
            return Added.CANCELLED
        if state.is_closed:
            return Added.CLOSED
        if state.offset != new.offset:
            return Added.MOVED
        return Added.FULL if state.size_bytes > room_bytes else Added.ADDED

    def close(self, batch: str, offset: int) -> bool:
        """The input ends here: whether it does."""
        found = self._working(batch)
        if found is None or found.state.offset != offset:
            return False
        found.change(is_closed=True)
        return True

    def take(self, consumer: str, *, idle_ms: int, now_ms: int) -> Chunk | None:
        """A chunk whose host is silent, else the next one."""
        if self.stream:
            self.asked_at_ms[consumer] = now_ms
        idle = (entry for entry in self.stream if self._idle_ms(entry, now_ms) >= idle_ms)
        fresh = (entry for entry in self.stream if entry not in self.held)
        entry = next(idle, None) or next(fresh, None)
        if entry is None:
            return None
        self.held[entry] = _Held(consumer, now_ms)
        return self.stream[entry]

    def _idle_ms(self, entry: str, now_ms: int) -> int:
        held = self.held.get(entry)
        return -1 if held is None else now_ms - held.since_ms

    def begin(self, consumer: str, chunk: Chunk, *, now_ms: int) -> Begun:
        """Gives the lines of a chunk to whom holds it."""
        hold = self.hold(consumer, chunk, now_ms=now_ms)
        found = self._working(chunk.batch)
        if hold is Hold.HELD and found is not None:
            if chunk.number in found.chunks and not found.is_done(chunk):
                return Begun(
                    hold, found.chunks[chunk.number], _bits(found.done, chunk), dict(found.state.keys)
                )
            hold = Hold.LOST
            self._retire(chunk)
        elif hold is not Hold.LOST:
            self._retire(chunk)
        return Begun(hold)

    def hold(self, consumer: str, chunk: Chunk, *, now_ms: int) -> Hold:
        """Goes on holding a chunk: whether it still may."""
        found = self._working(chunk.batch)
        if found is None:
            return Hold.GONE
        if found.state.is_cancelled:
            return Hold.CANCELLED
        if not self._is_held(consumer, chunk):
            return Hold.LOST
        self.held[chunk.entry].since_ms = self.asked_at_ms[consumer] = now_ms
        return Hold.HELD

    def _is_held(self, consumer: str, chunk: Chunk) -> bool:
        held = self.held.get(chunk.entry)
        return self.stream.get(chunk.entry) == chunk and held is not None and held.consumer == consumer

    def answer(self, chunk: Chunk, line: int, result: bytes, *, failed: bool) -> Kept:
        """Keeps the first result of a line, whoever holds its chunk."""
        found = self._working(chunk.batch)
        if found is None:
            return Kept.GONE
        if line in found.done:
            return Kept.DOUBLE
        state = found.state
        found.done.add(line)
        found.results[line] = result
        found.change(
            done=state.done + 1, failed=state.failed + failed, size_bytes=state.size_bytes + len(result)
        )
        if found.is_done(chunk):
            self._retire(chunk)
        return Kept.KEPT

    def _retire(self, chunk: Chunk) -> None:
        if self.stream.get(chunk.entry) == chunk:
            del self.stream[chunk.entry]
            self.held.pop(chunk.entry, None)
        found = self._working(chunk.batch)
        sealed = None if found is None else found.chunks.pop(chunk.number, None)
        if found is not None and sealed is not None:
            state = found.state
            found.change(open_chunks=state.open_chunks - 1, size_bytes=state.size_bytes - len(sealed))

    def release(self, consumer: str, chunk: Chunk, *, now_ms: int) -> None:
        """Gives a chunk back; of a batch that is cancelled or gone, takes it out."""
        found = self._working(chunk.batch)
        if found is None or found.state.is_cancelled:
            self._retire(chunk)
        elif self._is_held(consumer, chunk):
            self.held[chunk.entry].since_ms = now_ms - RELEASED_MS
            self.asked_at_ms[consumer] = now_ms

    def page(
        self, batch: str, output: bytes, token: str, *, takes_over: bool, most: int, room_bytes: int
    ) -> Page:
        """Some results, for the output that has the others."""
        found = self._working(batch)
        if found is None:
            return Page(Fetch.GONE)
        if found.token not in ("", token) and not takes_over:
            return Page(Fetch.OTHER, fetcher=found.state.output)
        if found.token != token:
            found.token, found.state = token, replace(found.state, output=output)
        page: dict[int, bytes] = {}
        for line in sorted(found.results)[:most]:
            page[line] = found.results[line]
            if sum(map(len, page.values())) >= room_bytes:
                break
        return Page(Fetch.OURS, page)

    def drop(self, batch: str, token: str, lines: list[int]) -> int:
        """Drops results that are on the disk of the output that has them: how many."""
        found = self._working(batch)
        if found is None or found.token != token:
            return 0
        dropped = [found.results.pop(line) for line in lines if line in found.results]
        state = found.state
        size_bytes = state.size_bytes - sum(map(len, dropped))
        found.change(size_bytes=size_bytes, fetched=state.fetched + len(dropped))
        return len(dropped)

    def cancel(self, batch: str) -> bool:
        """No line of it is begun any more."""
        found = self._working(batch)
        if found is None:
            return False
        found.change(is_cancelled=True)
        return True

    def finish(self, batch: str) -> bool:
        """All results were fetched: the batch is remembered for a week, so that nobody submits it twice."""
        found = self._working(batch)
        if found is None:
            return False
        found.chunks, found.done, found.results = {}, set(), {}
        found.change(is_ended=True, size_bytes=0)
        return True

    def discard(self, batch: str, name: str) -> None:
        """Removes a batch with all that is left of it."""
        self.batches.pop(batch, None)
        if self.names.get(name) == batch:
            del self.names[name]

    def flight(self, batch: str, *, idle_ms: int, now_ms: int) -> InFlight:
        """Lines that are held and have no result, and how long nobody asks for those that wait."""
        found = self._working(batch)
        done = set() if found is None else found.done
        lines, hosts = 0, []
        for entry, held in self.held.items():
            chunk = self.stream[entry]
            if chunk.batch == batch and now_ms - held.since_ms < idle_ms:
                lines += chunk.count - sum(number in done for number in range(chunk.first, chunk.last + 1))
                hosts.append(host_of(held.consumer))
        unasked_ms = 0
        if found is not None and found.state.open_chunks:
            unasked_ms = now_ms - max(found.waits_since_ms, *self.asked_at_ms.values(), 0)
        return InFlight(lines, tuple(sorted(set(hosts))), unasked_ms if unasked_ms >= 2 * idle_ms else 0)


def host_of(consumer: str) -> str:
    """The host of one of its processes."""
    return consumer.rpartition("/")[0]


def _bits(done: set[int], chunk: Chunk) -> bytes:
    """As the engine's bitmap has them: the highest bit first, and no byte after the last one that was set."""
    first, last = chunk.first // 8, chunk.last // 8
    top = max(done, default=-1) // 8
    bits = bytearray(max(0, min(last, top) - first + 1))
    for number in done:
        if first <= number // 8 <= min(last, top):
            bits[number // 8 - first] |= 0x80 >> number % 8
    return bytes(bits)
