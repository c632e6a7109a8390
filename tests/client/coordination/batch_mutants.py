"""Rules of shared batches, each left out or broken: the simulation finds every one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ai_client.batch.output import Done, LineFile
from ai_client.batch.shared.fetching import Fetching, _Memory
from ai_client.batch.shared.held import HeldChunk
from ai_client.batch.shared.worker import SharedWorker
from ai_client.coordination.batch_books import BatchBooks, SharedBatch
from ai_client.coordination.batch_protocol import Added, BatchState, Begun, Chunk, Hold, Kept, NewChunk
from ai_client.coordination.endpoint import EngineError

_answer = BatchBooks.answer
_hold = BatchBooks.hold
_page = Fetching._page


def keeps_the_last_result(books: BatchBooks, chunk: Chunk, line: int, result: bytes, *, failed: bool) -> Kept:
    found = books.batches.get(chunk.batch)
    if found is not None:
        found.done.discard(line)
    return _answer(books, chunk, line, result, failed=failed)


def retires_with_the_first_result(batch: SharedBatch, chunk: Chunk) -> bool:
    return any(number in batch.done for number in range(chunk.first, chunk.last + 1))


def takes_an_entry_for_another(books: BatchBooks, chunk: Chunk) -> None:
    """After a failover it may be another chunk's."""
    books.stream.pop(chunk.entry, None)
    books.held.pop(chunk.entry, None)
    found = books.batches.get(chunk.batch)
    sealed = None if found is None else found.chunks.pop(chunk.number, None)
    if found is not None and sealed is not None:
        found.change(open_chunks=found.state.open_chunks - 1)


def adds_a_part_twice(state: BatchState, new: NewChunk, room_bytes: int) -> Added:
    del new
    return Added.FULL if state.size_bytes > room_bytes else Added.ADDED


def holds_what_another_has(books: BatchBooks, consumer: str, chunk: Chunk) -> bool:
    del consumer
    return chunk.entry in books.held and books.stream.get(chunk.entry) == chunk


def begins_lines_for_ever(held: HeldChunk, now_ms: int) -> bool:
    del now_ms
    return bool(held.todo) and held.hold is Hold.HELD and not held.is_given_up


def sends_what_is_done(begun: Begun, chunk: Chunk, number: int) -> bool:
    del begun, chunk, number
    return False


def fetches_a_line_twice(done: Done, number: int) -> bool:
    del done, number
    return True


async def drops_before_it_writes(
    fetching: Fetching, memory: _Memory, where: bytes, *, takes_over: bool
) -> Any:
    page = await _page(fetching, memory, where, takes_over=takes_over)
    try:
        await fetching._engine.drop(memory.batch, memory.token, list(page.results))
    except EngineError:
        return replace(page, results={})
    return page


def cuts_off_nothing(file: LineFile) -> Any:
    del file
    return iter(())


async def tends_no_batch(worker: SharedWorker) -> None:
    del worker


#: A seed that finds it, and what is replaced by what.
MUTANTS: dict[str, tuple[int, type, str, Any]] = {
    "a second result is kept": (0, BatchBooks, "answer", keeps_the_last_result),
    "a chunk is retired too early": (0, SharedBatch, "is_done", retires_with_the_first_result),
    "an entry is taken for another": (0, BatchBooks, "_retire", takes_an_entry_for_another),
    "a part is added twice": (0, BatchBooks, "_may_add", staticmethod(adds_a_part_twice)),
    "a hold is no one's": (18, BatchBooks, "_is_held", holds_what_another_has),
    "a hold never ends": (47, HeldChunk, "may_begin", begins_lines_for_ever),
    "what is done is sent": (0, Begun, "is_done", sends_what_is_done),
    "a fetched line is fetched again": (3, Done, "add", fetches_a_line_twice),
    "results are dropped before they are written": (0, Fetching, "_page", drops_before_it_writes),
    "an output is not looked at": (3, LineFile, "recover", cuts_off_nothing),
    "a change of the key is overlooked": (56, SharedWorker, "_tend", tends_no_batch),
}
