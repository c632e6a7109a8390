"""What all connections of one server share."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Bounds:
    """How patient a server is with its callers, in seconds, and how many of them it takes."""

    #: For a request to arrive whole, from its first byte.
    arrival_s: float = 30.0
    #: Between an answer and the next request.
    idle_s: float = 75.0
    #: For an answer that is not read to be read on.
    unread_s: float = 60.0
    #: How often that is looked at.
    tick_s: float = 1.0
    #: Connections in all, and of one caller: a uid, or an address.
    connections: int = 8192
    per_caller: int = 4096
    #: Whom the second does not bind.
    trusted_uids: frozenset[int] = frozenset({0})
    #: Bytes of answers that callers have not taken yet, in all.
    unread_bytes: int = 128 * 1024 * 1024


@dataclass(slots=True)
class Shared:
    """Known to every connection."""

    bounds: Bounds
    #: Of every answer: the date, made anew each second.
    common_headers: dict[str, str] = field(default_factory=dict)
    #: Requests that a fault of ours ended.
    faults: int = 0
