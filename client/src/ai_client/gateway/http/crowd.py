"""Who is connected, and how many of whom: connections are descriptors and memory, of which a host has so many."""

from __future__ import annotations

from typing import Protocol

from ai_client.gateway.http.asgi import UID_MARK
from ai_client.gateway.http.shared import Bounds


class CallerConnection(Protocol):
    """A connection."""

    #: A uid, or an address.
    caller: object

    def leave_idle(self) -> None:
        """Make room: nothing is being answered on it."""
        ...


class Crowd:
    """The connections of one server, bounded in all and for each caller: a uid, or an address.

    Where a bound is reached the caller's longest idle connection goes; where none is idle, the newcomer is sent away.
    The service's own user and root have no bound of their own: the process that hands over comes as one of them.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        #: Idle ones, the longest idle first; those that are being answered are only counted.
        self._idle: dict[object, dict[CallerConnection, None]] = {}
        self._counts: dict[object, int] = {}
        self._total = 0
        #: How many were sent away or had to make room.
        self.refused = 0

    def admits(self, member: CallerConnection) -> bool:
        """Takes in a new connection, where there is room or can be made."""
        who = member.caller
        has_room = self._make_room(who)
        if has_room:
            self._total += 1
            self._counts[who] = self._counts.get(who, 0) + 1
            self._idle.setdefault(who, {})[member] = None
        else:
            self.refused += 1
        return has_room

    def _make_room(self, who: object) -> bool:
        is_full = self._total >= self._bounds.connections
        is_one_too_many = not self._is_trusted(who) and self._counts.get(who, 0) >= self._bounds.per_caller
        if not (is_full or is_one_too_many):
            return True
        of_whom = who if is_one_too_many else max(self._counts, key=self._counts.__getitem__)
        idle = self._idle.get(of_whom)
        if not idle:
            return False
        longest = next(iter(idle))
        self.left(longest)
        longest.leave_idle()
        self.refused += 1
        return True

    def _is_trusted(self, who: object) -> bool:
        return isinstance(who, int) and who in self._bounds.trusted_uids

    def busy(self, member: CallerConnection) -> None:
        """A request of it is being answered."""
        idle = self._idle.get(member.caller)
        if idle is not None:
            idle.pop(member, None)

    def idle(self, member: CallerConnection) -> None:
        """Its answer is out."""
        idle = self._idle.get(member.caller)
        if idle is not None:
            idle[member] = None

    def left(self, member: CallerConnection) -> None:
        """It is gone, or going. Once for each that was admitted."""
        who = member.caller
        self._total -= 1
        count = self._counts[who] - 1
        if count:
            self._counts[who] = count
            self._idle[who].pop(member, None)
        else:
            del self._counts[who], self._idle[who]

    def __len__(self) -> int:
        return self._total


def caller_of(client: tuple[str, int] | None) -> object:
    """A uid, or an address."""
    return None if client is None else client[1] if client[0] == UID_MARK else client[0]
