"""Single flight for streams: identical requests read one upstream stream, each at its own pace, from its beginning.

There is no pump: whoever needs the next chunk pulls it, so the fastest reader sets the pace and a stream that nobody
reads stands still. A lone reader pulls directly, which costs nothing; from the second one on a pull is a task, so that
a reader who leaves does not tear the chunk out of the others' hands.
"""

import asyncio
import copy
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Generic, Protocol, Self, TypeVar

from ai_client.errors import AIClientError
from ai_client.sharing.single_flight import Flights

#: Longer streams are not recorded: nobody can join them any more, and they are not cached.
MAX_RECORDED_BYTES: Final = 4 * 1024 * 1024


class ChunkSource(Protocol):
    """An open stream from the upstream."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None: ...


S = TypeVar("S", bound=ChunkSource)


class _Shared(Generic[S]):
    """One open stream, what it has said so far, and how many read it."""

    def __init__(
        self, source: S, *, on_whole: Callable[[S, bytes], None], on_sealed: "Callable[[_Shared[S]], None]"
    ) -> None:
        self.source = source
        self.chunks: list[bytes] = []
        #: In the order they came: the first one's it is, with all that it costs.
        self.members: list[FlightReader[S]] = []
        self.is_over = False
        #: Too long to be recorded: the last reader drops what it has read.
        self.is_long = False
        #: Can't be read from its beginning: chunks were dropped, or its last reader left before its end.
        self.is_broken = False
        self.error: BaseException | None = None
        self._on_whole = on_whole
        self._on_sealed = on_sealed
        self._recorded_bytes = 0
        self._pull: asyncio.Task[None] | None = None
        self._is_pulling_directly = False
        self._changed: set[asyncio.Future[None]] = set()

    @property
    def readers(self) -> int:
        """How many read it."""
        return len(self.members)

    @property
    def is_pulling_directly(self) -> bool:
        return self._is_pulling_directly

    def is_whole(self) -> bool:
        """Whether it can be read from its beginning."""
        return not self.is_broken

    def more(self) -> Awaitable[None]:
        """Returns when there is a chunk more, or the stream is over."""
        if self._pull is None and not self._is_pulling_directly:
            if self.readers == 1:
                return self._pull_directly()
            self._pull = asyncio.ensure_future(self._take_next())
            self._pull.add_done_callback(self._pulled)
        return self.change()

    async def change(self) -> None:
        """Returns when the pull that runs now has ended."""
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed.add(changed)
        try:
            await changed
        finally:
            self._changed.discard(changed)

    async def aclose(self) -> None:
        """The last reader has left."""
        self._on_sealed(self)
        if not self.is_over:
            self.is_over = self.is_broken = True
        if self._pull is not None:
            self._pull.cancel()
            await asyncio.wait([self._pull])
        self.error = None  # it holds the frames that it came through, and they this
        await self.source.aclose()

    async def _pull_directly(self) -> None:
        self._is_pulling_directly = True
        try:
            self._note(await self.source.__anext__())
        except StopAsyncIteration:
            self._end(None)
        except BaseException as error:
            self._end(error)
            raise
        finally:
            self._is_pulling_directly = False
            if self._changed:
                self._wake()

    async def _take_next(self) -> None:
        try:
            chunk = await self.source.__anext__()
        except StopAsyncIteration:
            self._end(None)
        else:
            self._note(chunk)

    def _note(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        self._recorded_bytes += len(chunk)
        if self._recorded_bytes > MAX_RECORDED_BYTES and not self.is_long:
            self.is_long = True
            self._on_sealed(self)

    def _pulled(self, pull: asyncio.Task[None]) -> None:
        self._pull = None
        if pull.cancelled():
            self._end(asyncio.CancelledError())
        elif (error := pull.exception()) is not None:
            self._end(error)
        self._wake()

    def _end(self, error: BaseException | None) -> None:
        self.is_over = True
        self.error = error
        # The source has closed itself; whoever has joined by now has read nothing yet, and starts anew.
        self.is_broken = isinstance(error, asyncio.CancelledError)
        if error is None and not self.is_long:
            self._on_whole(self.source, b"".join(self.chunks))
        self._on_sealed(self)

    def _wake(self) -> None:
        for changed in self._changed:
            if not changed.done():
                changed.set_result(None)


class FlightReader(Generic[S]):
    """One reader of a stream that others may read too: an async iterator of its raw chunks. Close it."""

    def __init__(self, shared: _Shared[S], *, is_shared: bool) -> None:
        self._shared = shared
        self._position = 0
        self._is_closed = False
        #: Whether the upstream stream is somebody else's: of who opened it or, where that one left, of the next.
        self.is_shared = is_shared
        self._has_read_all = False
        shared.members.append(self)

    @property
    def source(self) -> S:
        """The upstream stream, for its status and headers; only this class reads it."""
        return self._shared.source

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        shared = self._shared
        while not self._is_closed:
            if self._position < len(shared.chunks):
                chunk = shared.chunks[self._position]
                self._advance()
                return chunk
            if shared.error is not None or shared.is_over:
                self._has_read_all = True
                if shared.error is not None:
                    raise copy.copy(shared.error)
                break
            await shared.more()
        raise StopAsyncIteration

    def _advance(self) -> None:
        shared = self._shared
        if shared.is_long and shared.readers == 1:
            shared.is_broken = True
            del shared.chunks[: self._position + 1]
            self._position = 0
        else:
            self._position += 1

    async def aclose(self) -> None:
        """Leaves the stream; the last one to leave closes it."""
        if self._is_closed:
            return
        self._is_closed = True
        self._shared.members.remove(self)
        if self._shared.members and not (self.is_shared or self._has_read_all):
            self._shared.members[0].is_shared = False
        if not self._shared.members:
            await self._shared.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class StreamFlights(Generic[S]):
    """Open streams by key. `on_whole(key, source, body)` is called once for each that came to its end."""

    def __init__(
        self,
        *,
        is_leaders_own: Callable[[AIClientError], bool],
        on_whole: Callable[[str, S, bytes], None],
    ) -> None:
        self._opening: Flights[_Shared[S]] = Flights(is_leaders_own=is_leaders_own)
        self._on_whole = on_whole
        self._open: dict[str, _Shared[S]] = {}
        self._arriving: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._opening) + len(self._open)

    async def open(self, key: str, open_source: Callable[[], Awaitable[S]]) -> FlightReader[S]:
        """A reader of the one stream for `key`. Raises what opening it raises."""
        while True:
            shared, is_shared = self._open.get(key), True
            if shared is None:
                shared, is_shared = await self._arrive(key, open_source)
            # Even the one who opened it may find others there before, who came in the turn in between.
            reader = await self._join(shared, is_shared=is_shared)
            if reader is not None:
                return reader

    async def aclose(self) -> None:
        """Ends what is being opened; open streams are ended by their readers."""
        await self._opening.aclose()

    async def _arrive(self, key: str, open_source: Callable[[], Awaitable[S]]) -> tuple[_Shared[S], bool]:
        self._arriving[key] += 1
        try:
            return await self._opening.run(key, lambda: self._opened(key, open_source))
        except asyncio.CancelledError:
            # It may have been opened in this very turn of the loop, for nobody.
            shared = self._open.get(key)
            if shared is not None and shared.readers == 0 and self._arriving[key] == 1:
                await shared.aclose()
            raise
        finally:
            self._arriving[key] -= 1
            if not self._arriving[key]:
                del self._arriving[key]

    async def _join(self, shared: _Shared[S], *, is_shared: bool) -> FlightReader[S] | None:
        """A reader from the stream's beginning, or None where it is not whole any more."""
        if not shared.is_whole():
            return None
        reader = FlightReader(shared, is_shared=is_shared)
        if not shared.is_pulling_directly:
            return reader
        # A direct pull dies with its reader, and the stream with it: so nothing is read before it has ended.
        try:
            await shared.change()
        except asyncio.CancelledError:
            await reader.aclose()
            raise
        if not shared.is_whole():
            await reader.aclose()
            return None
        return reader

    async def _opened(self, key: str, open_source: Callable[[], Awaitable[S]]) -> _Shared[S]:
        source = await open_source()

        def whole(source: S, body: bytes) -> None:
            self._on_whole(key, source, body)

        # Not by its name here: a stream that holds who holds it stays until the collector comes.
        def seal(sealed: _Shared[S]) -> None:
            if self._open.get(key) is sealed:
                del self._open[key]

        shared = _Shared(source, on_whole=whole, on_sealed=seal)
        self._open[key] = shared
        return shared
