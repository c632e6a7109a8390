"""Shared streams: every reader gets every byte, at its own pace, whoever leaves."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from ai_client.errors import AIClientError, ConnectionLostError, ServerError
from ai_client.sharing import stream_flight
from ai_client.sharing.stream_flight import FlightReader, StreamFlights


class Source:
    """An upstream stream whose chunks come when the test feeds them; like the real one it dies of a cancellation."""

    def __init__(self) -> None:
        self._chunks: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.closed = 0
        self.pulls = 0

    def feed(self, *chunks: bytes | Exception | None) -> None:
        for chunk in chunks:
            self._chunks.put_nowait(chunk)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        assert not self.closed
        self.pulls += 1
        try:
            chunk = await self._chunks.get()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if isinstance(chunk, Exception):
            await self.aclose()
            raise chunk
        if chunk is None:
            await self.aclose()
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self.closed += 1


class Stage:
    """Stream flights, the sources they opened, and the whole bodies they told of."""

    def __init__(self) -> None:
        self.sources: list[Source] = []
        self.whole: list[tuple[str, bytes]] = []
        self.flights: StreamFlights[Source] = StreamFlights(
            is_leaders_own=lambda error: False,
            on_whole=lambda key, source, body: self.whole.append((key, body)),
        )

    async def open_source(self) -> Source:
        await asyncio.sleep(0)
        self.sources.append(Source())
        return self.sources[-1]

    async def open(self, key: str = "k") -> FlightReader[Source]:
        return await self.flights.open(key, self.open_source)


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def turn(times: int = 5) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def read(reader: FlightReader[Source]) -> bytes:
    """Everything to the end, then closed."""
    async with reader:
        return b"".join([chunk async for chunk in reader])


async def test_a_lone_reader_gets_the_chunks_and_the_body_is_told_once(stage: Stage) -> None:
    """What the cache keeps is what the reader read."""
    reader = await stage.open()
    stage.sources[0].feed(b"a", b"b", None)
    assert await read(reader) == b"ab"
    assert stage.whole == [("k", b"ab")]
    assert not reader.is_shared
    assert len(stage.flights) == 0


async def test_readers_who_come_at_once_or_later_read_one_stream_from_its_beginning(stage: Stage) -> None:
    """Two while it is being opened, one in the middle: one upstream stream."""
    one, two = await asyncio.gather(stage.open(), stage.open())
    stage.sources[0].feed(b"a", b"b")
    assert await anext(one) == b"a"
    assert await anext(one) == b"b"
    late = await stage.open()
    stage.sources[0].feed(b"c", None)
    assert await asyncio.gather(read(one), read(two), read(late)) == [b"c", b"abc", b"abc"]
    assert len(stage.sources) == 1
    assert [one.is_shared, two.is_shared, late.is_shared] == [False, True, True]


async def test_the_first_reader_may_leave_in_the_middle_of_a_pull(stage: Stage) -> None:
    """The chunk that it waited for comes to the others; nothing is asked for twice."""
    one, two = await asyncio.gather(stage.open(), stage.open())
    pulling = asyncio.create_task(anext(one))
    await turn()
    pulling.cancel()
    await asyncio.wait([pulling])
    await one.aclose()
    stage.sources[0].feed(b"a", None)
    assert await read(two) == b"a"
    assert len(stage.sources) == 1


async def test_one_who_joins_during_a_lone_pull_survives_that_reader_s_cancellation(stage: Stage) -> None:
    """A lone pull dies with its reader: the one who joined has read nothing yet, and gets a stream of its own."""
    one = await stage.open()
    pulling = asyncio.create_task(anext(one))
    await turn()
    joining = asyncio.create_task(stage.open())
    await turn()
    assert not joining.done()
    pulling.cancel()
    await asyncio.wait([pulling])
    await one.aclose()
    two = await joining
    stage.sources[1].feed(b"x", None)
    assert await read(two) == b"x"
    assert [source.closed > 0 for source in stage.sources] == [True, True]


async def test_the_stream_is_closed_with_its_last_reader(stage: Stage) -> None:
    """And not before; what was cut off is not told as whole."""
    one, two = await asyncio.gather(stage.open(), stage.open())
    stage.sources[0].feed(b"a")
    assert await anext(one) == b"a"
    await one.aclose()
    assert stage.sources[0].closed == 0
    pulling = asyncio.create_task(anext(two))
    await turn()
    assert await pulling == b"a"
    await two.aclose()
    assert stage.sources[0].closed >= 1
    assert stage.whole == []
    assert len(stage.flights) == 0


async def test_a_failure_in_the_middle_is_every_reader_s(stage: Stage) -> None:
    """Each gets what came before it, then the error; nothing is told as whole."""
    one, two = await asyncio.gather(stage.open(), stage.open())
    stage.sources[0].feed(b"a", ConnectionLostError("upstream", "reset", sent=True))
    for reader in (one, two):
        assert await anext(reader) == b"a"
        with pytest.raises(ConnectionLostError):
            await anext(reader)
        await reader.aclose()
    assert stage.whole == []
    assert len(stage.flights) == 0


async def test_a_failure_to_open_is_every_waiter_s(stage: Stage) -> None:
    """Nothing stays behind."""

    async def fail() -> Source:
        await asyncio.sleep(0)
        raise ServerError("upstream", "is down", status=503)

    results = await asyncio.gather(*(stage.flights.open("k", fail) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ServerError] * 3
    assert len(stage.flights) == 0


async def test_a_stream_that_was_opened_for_nobody_is_closed(stage: Stage) -> None:
    """Its only reader is cancelled in the turn of the loop in which it was opened."""
    for turns in range(6):
        opening = asyncio.create_task(stage.open(str(turns)))
        await turn(turns)
        opening.cancel()
        await asyncio.wait([opening])
        if not opening.cancelled():
            await opening.result().aclose()
    await turn()
    assert all(source.closed for source in stage.sources)
    assert len(stage.flights) == 0


async def test_nobody_reading_means_nobody_pulls(stage: Stage) -> None:
    """Back-pressure: a stream that nobody reads stands still."""
    one, two = await asyncio.gather(stage.open(), stage.open())
    stage.sources[0].feed(b"a", b"b", b"c")
    await anext(one)
    await turn(20)
    assert stage.sources[0].pulls == 1
    await one.aclose()
    await two.aclose()


async def test_a_long_stream_is_not_kept_in_memory(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound nobody can join, nothing is told as whole, and a lone reader's chunks are dropped."""
    monkeypatch.setattr(stream_flight, "MAX_RECORDED_BYTES", 10)
    reader = await stage.open()
    stage.sources[0].feed(*[b"12345"] * 100, None)
    for _ in range(50):
        await anext(reader)
    assert len(reader._shared.chunks) <= 3
    other = await stage.open()
    assert len(stage.sources) == 2
    await other.aclose()
    assert len(await read(reader)) == 250
    assert stage.whole == []


@pytest.mark.parametrize("seed", range(60))
async def test_whoever_comes_and_goes_every_reader_who_stays_gets_every_byte(stage: Stage, seed: int) -> None:
    """Random arrivals, cancellations and chunks: whole streams for all who stay, and nothing left open."""
    dice = random.Random(seed)  # noqa: S311
    body = [bytes([65 + n]) for n in range(12)]

    async def one_reader(stays: bool) -> bytes | None:
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(0)
        try:
            reader = await stage.open()
            async with reader:
                got = b""
                async for chunk in reader:
                    got += chunk
                    if not stays and dice.random() < 0.2:
                        return None
                return got
        except AIClientError:
            return b"failed"

    async def feeder() -> None:
        fed: dict[int, int] = {}
        while True:
            await asyncio.sleep(0)
            for number, source in enumerate(stage.sources):
                at = fed.setdefault(number, 0)
                if at <= len(body) and dice.random() < 0.6:
                    source.feed(body[at] if at < len(body) else None)
                    fed[number] += 1

    feeding = asyncio.create_task(feeder())
    readers = [asyncio.create_task(one_reader(stays=number % 2 == 0)) for number in range(10)]
    for number in (1, 5):
        await turn(dice.randrange(15))
        readers[number].cancel()
    async with asyncio.timeout(10):
        await asyncio.wait(readers)
    feeding.cancel()
    assert [reader.result() for reader in readers[::2]] == [b"".join(body)] * 5
    assert all(source.closed for source in stage.sources)
    assert len(stage.flights) == 0
