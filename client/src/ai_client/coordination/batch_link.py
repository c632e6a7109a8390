"""Calls about shared batches, as the engine's script has them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from ai_client.coordination.batch_books import host_of
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
from ai_client.coordination.endpoint import Endpoint, EngineError
from ai_client.coordination.link import EngineLink

SCRIPT = (files("ai_client.coordination") / "batches.lua").read_text("utf-8")
_NAMED = (SCRIPT, hashlib.sha1(SCRIPT.encode()).hexdigest())  # noqa: S324 - how engines name scripts
_KEY = "key."


@dataclass(frozen=True, slots=True)
class BatchKeys:
    """Where an account's batches are in the engine, on the hash tag of its quota."""

    account: str

    def of(self, batch: str = "") -> list[str]:
        """Every key of the script, in its order; without a batch those of calls about none."""
        place = f"{{ai-client:{self.account}}}"
        shared = [f"{place}.batches", f"{place}.lines"]
        if not batch:
            return shared
        one = f"{place}.batch.{batch}"
        return [*shared, one, f"{one}.chunks", f"{one}.done", f"{one}.results"]


class BatchLink:
    """Each call raises EngineError where the engine gives no answer that counts; any of them may be repeated.

    Calls of several tasks go one after another; one whose task is cancelled ends first.
    """

    def __init__(self, link: EngineLink, keys: BatchKeys) -> None:
        self._link = link
        self._keys = keys
        self._turn = asyncio.Lock()
        self._calls: set[asyncio.Task[object]] = set()

    def renew(self, endpoint: Endpoint) -> None:
        """Ask there, as that user, from the next call on."""
        self._link.renew(endpoint)

    async def close(self) -> None:
        """Ends the connection, after the call that is under way."""
        async with self._turn:
            await self._link.close()

    async def open(self, new: NewBatch) -> str:
        """As BatchBooks, and so are all others."""
        given: list[str | bytes] = [new.name, str(new.opened_at_s), new.host, new.identity]
        for key, sealed in new.keys.items():
            given += [key, sealed]
        return _text(await self._call("open", new.batch, *given))

    async def wrap(self, batch: str, key: str, sealed: bytes) -> None:
        await self._call("wrap", batch, key, sealed)

    async def look(self, batch: str) -> BatchState | None:
        fields = _pairs(await self._call("look", batch))
        return _state(fields) if fields else None

    async def index(self) -> dict[str, str]:
        found = _pairs(await self._call("index", ""))
        return {name: _text(batch) for name, batch in found.items()}

    async def add(self, batch: str, new: NewChunk, *, room_bytes: int) -> Addition:
        numbers = [str(each) for each in (new.offset, new.end, new.first, new.last, new.count)]
        added, offset, last = _list(
            await self._call("add", batch, *numbers, new.sealed, str(room_bytes)), least=3
        )
        return Addition(Added(_text(added)), _number(offset), _number(last))

    async def close_batch(self, batch: str, offset: int) -> bool:
        return _number(await self._call("close", batch, str(offset))) == 1

    async def take(self, consumer: str, *, idle_ms: int) -> Chunk | None:
        found = _list(await self._call("take", "", consumer, str(idle_ms)))
        if not found:
            return None
        entry, batch, *numbers = found
        return Chunk(_text(entry), _text(batch), *map(_number, numbers))

    async def begin(self, consumer: str, chunk: Chunk) -> Begun:
        told = [consumer, chunk.entry, *map(str, (chunk.number, chunk.first, chunk.last, chunk.count))]
        hold, *rest = _list(await self._call("begin", chunk.batch, *told), least=1)
        if not rest:
            return Begun(Hold(_text(hold)))
        return Begun(Hold(_text(hold)), _bytes(rest[0]), _bytes(rest[1]), _by_name(rest[2:]))

    async def hold(self, consumer: str, chunk: Chunk) -> Hold:
        told = await self._call("hold", chunk.batch, consumer, chunk.entry, str(chunk.number))
        return Hold(_text(told))

    async def answer(self, chunk: Chunk, line: int, result: bytes, *, failed: bool) -> Kept:
        numbers = (chunk.number, chunk.first, chunk.last, chunk.count, line, int(failed))
        told = await self._call("answer", chunk.batch, chunk.entry, *map(str, numbers), result)
        return Kept(_text(told))

    async def release(self, consumer: str, chunk: Chunk) -> None:
        await self._call("release", chunk.batch, consumer, chunk.entry, str(chunk.number))

    async def page(
        self, batch: str, output: bytes, token: str, *, takes_over: bool, most: int, room_bytes: int
    ) -> Page:
        given = (output, token, str(int(takes_over)), str(most), str(room_bytes))
        fetch, fetcher, *rest = _list(await self._call("page", batch, *given), least=2)
        results = {int(line): result for line, result in _by_name(rest).items()}
        return Page(Fetch(_text(fetch)), results, _bytes(fetcher))

    async def drop(self, batch: str, token: str, lines: Sequence[int]) -> int:
        return _number(await self._call("drop", batch, token, *map(str, lines)))

    async def cancel(self, batch: str) -> bool:
        return _number(await self._call("cancel", batch)) == 1

    async def finish(self, batch: str) -> bool:
        return _number(await self._call("finish", batch)) == 1

    async def discard(self, batch: str, name: str) -> None:
        await self._call("discard", batch, name)

    async def flight(self, batch: str, *, idle_ms: int) -> InFlight:
        lines, unasked_ms, *consumers = _list(await self._call("flight", batch, str(idle_ms)), least=2)
        hosts = tuple(sorted({host_of(_text(each)) for each in consumers}))
        return InFlight(_number(lines), hosts, _number(unasked_ms))

    async def _call(self, name: str, batch: str, *given: str | bytes) -> object:
        # Not given up in the middle of an answer, which the next call would take for its own.
        call = asyncio.create_task(self._in_turn(name, batch, given))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return await asyncio.shield(call)

    async def _in_turn(self, name: str, batch: str, given: Sequence[str | bytes]) -> object:
        about = [batch] if batch else []
        async with self._turn:
            try:
                return await self._link.run(_NAMED, self._keys.of(batch), [name, *about, *given])
            except ValueError as exc:
                raise EngineError(f"the coordination engine answered in another form ({exc})") from exc


def _state(fields: dict[str, bytes]) -> BatchState:
    def number(name: str) -> int:
        return int(fields.get(name, b"0"))

    return BatchState(
        name=_text(fields["name"]),
        batch=_text(fields["id"]),
        opened_at_s=number("opened_at"),
        host=_text(fields["host"]),
        identity=fields["identity"],
        keys={name.removeprefix(_KEY): each for name, each in fields.items() if name.startswith(_KEY)},
        offset=number("offset"),
        lines=number("lines"),
        last=number("last"),
        is_closed=bool(number("closed")),
        is_cancelled=bool(number("cancelled")),
        done=number("done"),
        failed=number("failed"),
        fetched=number("fetched"),
        size_bytes=number("bytes"),
        open_chunks=number("open"),
        results=number("results"),
        is_ended=bool(number("ended")),
        output=fields.get("output", b""),
    )


def _list(reply: object, *, least: int = 0) -> Sequence[object]:
    if not isinstance(reply, list) or len(reply) < least:
        raise EngineError(
            "the coordination engine's script answered in another form: another release's script?"
        )
    return reply


def _pairs(reply: object) -> dict[str, bytes]:
    return _by_name(_list(reply))


def _by_name(flat: Sequence[object]) -> dict[str, bytes]:
    return {_text(name): _bytes(each) for name, each in zip(flat[::2], flat[1::2], strict=True)}


def _bytes(reply: object) -> bytes:
    return reply if isinstance(reply, bytes) else str(reply).encode()


def _text(reply: object) -> str:
    return _bytes(reply).decode()


def _number(reply: object) -> int:
    return int(_bytes(reply))
