"""Single flight: identical requests at the same time are one call upstream.

The call belongs to the flight and not to the caller who came first, so any caller may leave: the others still get the
answer of the one call, and the call ends early only when all of them have left.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

from ai_client.errors import AIClientError
from ai_client.platform.loop import RunningLoop

T = TypeVar("T")


class _Flight(Generic[T]):
    """One call and those who wait for it."""

    __slots__ = ("payer", "task", "waiters")

    task: asyncio.Task[None]

    def __init__(self) -> None:
        #: In the order they came: where one has to fly again, it is the first.
        self.waiters: dict[asyncio.Future[T], None] = {}
        #: Whose the call was in the end: the first of those who were there when it landed.
        self.payer: asyncio.Future[T] | None = None

    def land(self) -> None:
        """Somebody has to account for it, also where the one who began it has left."""
        self.payer = next((each for each in self.waiters if not each.done()), None)


class Flights(Generic[T]):
    """Calls in flight by key. `is_leaders_own` tells failures that say nothing of the others' chances.

    A deadline is the case in point: the one who came first may have had less time than those who joined. Then one
    of them flies again, for all that are left.
    """

    def __init__(self, *, is_leaders_own: Callable[[AIClientError], bool]) -> None:
        self._is_leaders_own = is_leaders_own
        self._flights: dict[str, _Flight[T]] = {}
        self._loop = RunningLoop()

    def __len__(self) -> int:
        return len(self._flights)

    async def run(self, key: str, call: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """The answer of the one call for `key`, and whether it was somebody else's. Raises what the call raises.

        Of those who get an answer one has it as its own: the first, or where that one has left, the next.
        """
        while True:
            flight = self._flights.get(key)
            is_shared = flight is not None
            if flight is None:
                flight = self._start(key, call)
            waiter: asyncio.Future[T] = flight.task.get_loop().create_future()
            flight.waiters[waiter] = None
            try:
                return await waiter, waiter is not flight.payer
            except asyncio.CancelledError:
                await self._leave(key, flight, waiter)
                raise
            except AIClientError as error:
                if not is_shared or not self._is_leaders_own(error):
                    raise
            finally:
                # It holds the error, which holds this frame: see `Dispatcher._until_answered`.
                del waiter

    async def aclose(self) -> None:
        """Cancels every call; those who wait for one are cancelled with it."""
        flights = list(self._flights.values())
        self._flights.clear()
        for flight in flights:
            flight.task.cancel()
        if flights:
            await asyncio.wait([flight.task for flight in flights])
        for flight in flights:
            # A task that is cancelled before its first step never gets to tell them.
            for waiter in flight.waiters:
                waiter.cancel()

    def _start(self, key: str, call: Callable[[], Awaitable[T]]) -> _Flight[T]:
        flight: _Flight[T] = _Flight()
        flight.task = self._loop.get().create_task(self._fly(key, flight, call))
        self._flights[key] = flight
        return flight

    async def _fly(self, key: str, flight: _Flight[T], call: Callable[[], Awaitable[T]]) -> None:
        """Lands within its own task: a callback at its end would be another turn of the loop for each call."""
        try:
            result = await call()
        except asyncio.CancelledError:
            self._forget(key, flight)
            for waiter in flight.waiters:
                waiter.cancel()
            del flight  # its task keeps the cancellation, which holds this frame
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the waiters' to hear
            self._forget(key, flight)
            _hand_on(error, flight.waiters)
            flight.waiters.clear()  # they hold the error, which holds this frame
        else:
            self._forget(key, flight)
            flight.land()
            for waiter in flight.waiters:
                if not waiter.done():
                    waiter.set_result(result)

    async def _leave(self, key: str, flight: _Flight[T], waiter: asyncio.Future[T]) -> None:
        flight.waiters.pop(waiter, None)
        if not flight.waiters and not flight.task.done():
            # Whoever comes now must not join a call that is being called off.
            self._forget(key, flight)
            flight.task.cancel()
            # Leave only when the call has given back what it held.
            await asyncio.wait([flight.task])

    def _forget(self, key: str, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


def _hand_on(error: BaseException, waiters: Iterable[asyncio.Future[T]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(error)
            # One exception raised in several tasks would collect the tracebacks of all of them.
            error = copy.copy(error)
