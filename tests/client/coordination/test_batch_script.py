"""The script of shared batches on a real engine does what the model does, call by call."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from ai_client.coordination.batch_books import BatchBooks
from ai_client.coordination.batch_link import BatchKeys, BatchLink
from ai_client.coordination.batch_protocol import Chunk, NewBatch, NewChunk
from ai_client.coordination.endpoint import Endpoint, EngineError
from ai_client.coordination.link import EngineLink
from tests.client.coordination.engine import RealEngine, programs
from tests.client.service_rig import free_port

_STEPS = 800
_CONSUMERS = ("a/1", "a/2", "b/1")
#: Nothing is silent for so long but what was given back; and everything is for so long.
_IDLE_MS = (3_600_000, 0)
_ROOM = 400


@pytest.fixture(params=programs())
def port(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    found = free_port()
    engine = RealEngine(request.param, tmp_path, "--port", str(found), "--bind", "127.0.0.1").start()
    yield found
    engine.stop()


@dataclass
class _Callers:
    """Random calls about few batches, most of them such as hosts make, some such as none does."""

    link: BatchLink
    books: BatchBooks
    random: random.Random
    ids: list[str] = field(default_factory=lambda: ["none"])
    chunks: list[Chunk] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)

    async def step(self) -> None:
        # The model's clock is of no account: with these idle times the engine's is not, either.
        names = ("open", "add", "add", "add", "take", "take", "take", "begin", "hold", "answer", "answer",
                 "answer", "answer", "release", "page", "drop", "look", "flight", "rare")  # fmt: skip
        name = self.random.choice(names)
        told, expected = await getattr(self, f"_{name}")()
        assert told == expected, name
        self.kinds.add(f"{name}:{getattr(told, 'hold', None) or getattr(told, 'added', None) or told}"[:40])

    def _batch(self) -> str:
        return self.random.choice(self.ids[-3:])

    def _chunk(self) -> Chunk:
        return self.random.choice(self.chunks[-6:]) if self.chunks else Chunk("0-1", "none", 1, 1, 1, 1)

    async def _open(self) -> tuple[object, object]:
        pick = self.random
        new = NewBatch(
            f"n{pick.randint(0, 1)}", f"id{len(self.ids)}", 5, "a", b"\x00identity", {"k": pick.randbytes(8)}
        )
        told, expected = await self.link.open(new), self.books.open(new)
        if expected == new.batch:
            self.ids.append(new.batch)
        return told, expected

    async def _add(self) -> tuple[object, object]:
        pick, batch = self.random, self._batch()
        state = self.books.look(batch)
        at, last = (0, 0) if state is None else (state.offset, state.last)
        blank = pick.randint(0, 2)
        count = pick.randint(1, 9)
        wrong = pick.random() < 0.1
        new = NewChunk(
            at + 7 * wrong,
            at + 100,
            last + 1,
            last + count + blank,
            count,
            pick.randbytes(pick.randint(1, 60)),
        )
        told = await self.link.add(batch, new, room_bytes=_ROOM)
        return told, self.books.add(batch, new, room_bytes=_ROOM)

    async def _take(self) -> tuple[object, object]:
        consumer, idle_ms = self.random.choice(_CONSUMERS), self.random.choice((*_IDLE_MS, _IDLE_MS[0]))
        told = await self.link.take(consumer, idle_ms=idle_ms)
        expected = self.books.take(consumer, idle_ms=idle_ms, now_ms=0)
        if expected is not None:
            self.chunks.append(expected)
        return told, expected

    async def _begin(self) -> tuple[object, object]:
        consumer, chunk = self.random.choice(_CONSUMERS), self._chunk()
        return await self.link.begin(consumer, chunk), self.books.begin(consumer, chunk, now_ms=0)

    async def _hold(self) -> tuple[object, object]:
        consumer, chunk = self.random.choice(_CONSUMERS), self._chunk()
        return await self.link.hold(consumer, chunk), self.books.hold(consumer, chunk, now_ms=0)

    async def _answer(self) -> tuple[object, object]:
        pick, chunk = self.random, self._chunk()
        line = pick.randint(chunk.first, chunk.first + chunk.count - 1)
        result, failed = pick.randbytes(pick.randint(1, 30)), pick.random() < 0.3
        told = await self.link.answer(chunk, line, result, failed=failed)
        return told, self.books.answer(chunk, line, result, failed=failed)

    async def _release(self) -> tuple[object, object]:
        consumer, chunk = self.random.choice(_CONSUMERS), self._chunk()
        return await self.link.release(consumer, chunk), self.books.release(consumer, chunk, now_ms=0)

    async def _page(self) -> tuple[object, object]:
        token, over = self.random.choice("xy"), self.random.random() < 0.3
        batch, output = self._batch(), self.random.randbytes(3)
        given = {"takes_over": over, "most": 500, "room_bytes": 10**6}
        told = await self.link.page(batch, output, token, **given)
        return told, self.books.page(batch, output, token, **given)

    async def _drop(self) -> tuple[object, object]:
        pick, batch = self.random, self._batch()
        lines = [pick.randint(1, 60) for _ in range(10)]
        token = pick.choice("xxy")
        return await self.link.drop(batch, token, lines), self.books.drop(batch, token, lines)

    async def _look(self) -> tuple[object, object]:
        batch = self._batch()
        assert await self.link.index() == self.books.index()
        return await self.link.look(batch), self.books.look(batch)

    async def _flight(self) -> tuple[object, object]:
        batch = self._batch()
        told = await self.link.flight(batch, idle_ms=_IDLE_MS[0])
        return told, self.books.flight(batch, idle_ms=_IDLE_MS[0], now_ms=0)

    async def _rare(self) -> tuple[object, object]:
        batch, pick = self._batch(), self.random.random()
        state = self.books.look(batch)
        name = "n0" if state is None else state.name
        if pick < 0.1:
            return await self.link.finish(batch), self.books.finish(batch)
        if pick < 0.2:
            return await self.link.discard(batch, name), self.books.discard(batch, name)
        if pick < 0.4:
            return await self.link.cancel(batch), self.books.cancel(batch)
        if pick < 0.7:
            at = 0 if state is None else state.offset
            return await self.link.close_batch(batch, at), self.books.close(batch, at)
        return await self.link.wrap(batch, "k2", b"\x01\x02"), self.books.wrap(batch, "k2", b"\x01\x02")


def _link(port: int) -> BatchLink:
    return BatchLink(EngineLink(Endpoint(f"redis://127.0.0.1:{port}"), timeout_s=3.0), BatchKeys("account"))


@pytest.mark.parametrize("seed", range(6))
async def test_the_script_answers_as_the_model_does(port: int, seed: int) -> None:
    pick = random.Random(seed)  # noqa: S311 - calls, not secrets
    callers = _Callers(_link(port), BatchBooks(), pick)
    for step in range(_STEPS):
        try:
            await callers.step()
        except AssertionError as exc:
            raise AssertionError(f"seed {seed}, step {step}: {exc}") from exc
    await callers.link.close()


async def test_lines_that_nobody_asks_for_are_told_by_how_long_they_wait(port: int) -> None:
    """From when they came, or since a host last took or held any."""
    link, new = _link(port), NewBatch("n", "id", 5, "a", b"identity", {"k": b"key"})
    await link.open(new)
    assert (await link.flight("id", idle_ms=0)).unasked_ms == 0
    await link.add("id", NewChunk(0, 10, 1, 2, 2, b"sealed"), room_bytes=_ROOM)

    async def wait_for(least_ms: int) -> None:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + 10
        while not least_ms <= (unasked_ms := (await link.flight("id", idle_ms=20)).unasked_ms) < 5_000:
            assert loop.time() < end_s, unasked_ms
            await asyncio.sleep(0.01)

    await wait_for(40)
    chunk = await link.take("a/1", idle_ms=3_600_000)
    assert chunk is not None
    assert (await link.flight("id", idle_ms=3_000)).unasked_ms == 0
    await wait_for(200)
    await link.hold("a/1", chunk)
    assert (await link.flight("id", idle_ms=100)).unasked_ms == 0
    for line in (1, 2):
        await link.answer(chunk, line, b"result", failed=False)
    assert (await link.flight("id", idle_ms=0)).unasked_ms == 0
    await link.close()


async def test_each_step_is_done_whole_or_not_at_all_where_memory_is_full(port: int) -> None:
    """What adds is refused as a whole; what makes room goes on."""
    link = _link(port)
    operator = redis.Redis(port=port)
    new = NewBatch("n", "id", 5, "a", b"identity", {"k": b"key"})
    await link.open(new)
    await link.add("id", NewChunk(0, 10, 1, 2, 2, b"sealed"), room_bytes=_ROOM)
    chunk = await link.take("a/1", idle_ms=1000)
    assert chunk is not None
    await link.answer(chunk, 1, b"result", failed=False)
    before = await link.look("id")
    operator.config_set("maxmemory", 1)
    for refused in (
        link.open(NewBatch("m", "id2", 5, "a", b"identity", {"k": b"key"})),
        link.add("id", NewChunk(10, 20, 3, 3, 1, b"sealed"), room_bytes=_ROOM),
        link.answer(chunk, 2, b"result", failed=False),
        link.wrap("id", "k2", b"key"),
        link.close_batch("id", 10),
    ):
        with pytest.raises(EngineError, match="out of memory"):
            await refused
    assert await link.look("id") == before
    assert list(await link.index()) == ["n"]
    page = await link.page("id", b"", "x", takes_over=False, most=10, room_bytes=1000)
    assert await link.drop("id", "x", list(page.results)) == 1
    await link.cancel("id")
    await link.release("a/1", chunk)
    await link.discard("id", "n")
    assert [name.decode() for name in operator.keys("*")] == ["{ai-client:account}.lines"]
    operator.close()
    await link.close()


async def test_a_user_of_before_is_told_which_rights_it_lacks(port: int) -> None:
    """An engine whose user was set up for leases and budgets alone."""
    link = _link(port)
    with redis.Redis(port=port) as operator:
        rights = ("-@all", "+evalsha", "+eval", "+hget", "+hset", "+hgetall")
        operator.execute_command("ACL", "SETUSER", "default", *rights)
    for refused in (link.take("a/1", idle_ms=1000), link.open(NewBatch("n", "id", 5, "a", b"i", {}))):
        with pytest.raises(EngineError, match=r"see its ACL in docs/how-to/coordination\.md"):
            await refused
    await link.close()
