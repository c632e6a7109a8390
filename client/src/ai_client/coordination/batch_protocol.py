"""What hosts and the books of shared batches say to each other (docs/adr/0034). Prompts and answers are sealed.

A batch's lines go in *chunks*. A host *holds* a chunk: it alone begins lines of it, until it was silent for the idle
time. Each line has one result, the first that comes: a bit a line says so, and outlives the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

#: How far a batch is. `done`: every line is answered; `fetched`: and in somebody's output.
STAGES = ("submitting", "working", "done", "cancelled", "fetched")


@dataclass(frozen=True, slots=True)
class BatchTerms:
    """Times of the host's own clock that goes on while it is suspended, but for `idle_ms`, the engine's."""

    #: A chunk whose host was silent for so long is any host's.
    idle_ms: int = 60_000
    renew_ms: int = 10_000
    #: A submission waits while more than this of its batch lies in the engine, in bytes.
    room_bytes: int = 64_000_000

    @property
    def hold_ms(self) -> int:
        """From before the call that renewed it was sent: for so long lines of a chunk are begun."""
        return self.idle_ms // 2


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines `first` to `last` of a batch, `count` of them not blank; `entry` names it in the stream."""

    entry: str
    batch: str
    number: int
    first: int
    last: int
    count: int


@dataclass(frozen=True, slots=True)
class NewChunk:
    """Lines to add: `offset` to `end` of the input, in bytes. `sealed` holds them."""

    offset: int
    end: int
    first: int
    last: int
    count: int
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch to begin. `identity` tells its input, sealed; `keys` hold its key, sealed with each key of the host."""

    name: str
    batch: str
    opened_at_s: int
    host: str
    identity: bytes = field(repr=False)
    keys: dict[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class BatchState:
    """A batch as the books have it."""

    name: str
    batch: str
    opened_at_s: int
    host: str
    identity: bytes = field(repr=False)
    keys: dict[str, bytes] = field(repr=False)
    #: How much of the input is there: bytes of it, lines that are not blank, the number of the last line.
    offset: int = 0
    lines: int = 0
    last: int = 0
    is_closed: bool = False
    is_cancelled: bool = False
    #: Lines that have a result, those among them that failed, and results that were fetched.
    done: int = 0
    failed: int = 0
    fetched: int = 0
    #: What lies in the engine: bytes, chunks that are not done, results.
    size_bytes: int = 0
    open_chunks: int = 0
    results: int = 0
    #: Every result was fetched, to where `output` says, sealed.
    is_ended: bool = False
    output: bytes = field(default=b"", repr=False)

    @property
    def is_finished(self) -> bool:
        """Whether no result is to come any more."""
        return self.open_chunks == 0 and (self.is_cancelled or (self.is_closed and self.done >= self.lines))

    @property
    def stage(self) -> str:
        """One of STAGES."""
        if self.is_ended:
            return "fetched"
        if self.is_cancelled:
            return "cancelled"
        if not self.is_closed:
            return "submitting"
        return "done" if self.is_finished else "working"


class Added(StrEnum):
    """What became of a chunk that was to be added."""

    ADDED = "added"
    #: Not at this offset: the state says where to go on.
    MOVED = "moved"
    FULL = "full"
    CLOSED = "closed"
    CANCELLED = "cancelled"
    GONE = "gone"


class Hold(StrEnum):
    """How a host stands with a chunk."""

    HELD = "held"
    #: Another host's, or done.
    LOST = "lost"
    CANCELLED = "cancelled"
    #: The batch is not there any more.
    GONE = "gone"


class Kept(StrEnum):
    """What became of a result."""

    KEPT = "kept"
    #: The line has one already.
    DOUBLE = "double"
    GONE = "gone"


class Fetch(StrEnum):
    """Whether an output may be given results."""

    OURS = "ours"
    #: Another output has some.
    OTHER = "other"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Addition:
    """How far an input is: the answer to a chunk that was to be added."""

    added: Added
    offset: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class Begun:
    """A chunk that a host begins: its sealed lines, and a bit for each that is done, from line `first // 8 * 8` on."""

    hold: Hold
    sealed: bytes = field(default=b"", repr=False)
    done: bytes = b""
    keys: dict[str, bytes] = field(default_factory=dict, repr=False)

    def is_done(self, chunk: Chunk, number: int) -> bool:
        """Whether a line of the chunk has a result."""
        at = number - chunk.first // 8 * 8
        return at // 8 < len(self.done) and bool(self.done[at // 8] & 0x80 >> at % 8)


@dataclass(frozen=True, slots=True)
class Page:
    """Some sealed results by line, and whose they are; `fetcher` is what the other output left where it is OTHER."""

    fetch: Fetch
    results: dict[int, bytes] = field(default_factory=dict, repr=False)
    fetcher: bytes = b""


@dataclass(frozen=True, slots=True)
class InFlight:
    """Lines of a batch that are held and not done, and by which hosts.

    `unasked_ms`: for so long lines of it wait and no host has taken any, by the engine's clock; 0 where that is
    shorter than twice the idle time.
    """

    lines: int
    hosts: tuple[str, ...]
    unasked_ms: int = 0
