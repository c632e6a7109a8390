"""Single flight: identical requests at the same time are one call upstream.

The call belongs to the flight and not to the caller who came first, so any caller may leave: the others still get the
answer of the one call, and the call ends early only when all of them have left.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

from ai_client.errors import AIClientError

T = TypeVar("T")


class _Flight(Generic[T]):
    """One call and those who wait for it."""

    __slots__ = ("task", "waiters")

    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        #: In the order they came: where one has to fly again, it is the first.
        self.waiters: dict[asyncio.Future[T], None] = {}


class Flights(Generic[T]):
    """Calls in flight by key. `is_leaders_own` tells failures that say nothing of the others' chances.

    A deadline is the case in point: the one who came first may have had less time than those who joined. Then one
    of them flies again, for all that are left.
    """

    def __init__(self, *, is_leaders_own: Callable[[AIClientError], bool]) -> None:
        self._is_leaders_own = is_leaders_own
        self._flights: dict[str, _Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def run(self, key: str, call: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """The answer of the one call for `key`, and whether it was somebody else's. Raises what the call raises."""
        while True:
            flight = self._flights.get(key)
            is_shared = flight is not None
            if flight is None:
                flight = self._start(key, call)
            try:
                return await self._wait(key, flight), is_shared
            except AIClientError as error:
                if not is_shared or not self._is_leaders_own(error):
                    raise

    async def aclose(self) -> None:
        """Cancels every call; those who wait for one are cancelled with it."""
        tasks = [flight.task for flight in self._flights.values()]
        self._flights.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _start(self, key: str, call: Callable[[], Awaitable[T]]) -> _Flight[T]:
        flight: _Flight[T] = _Flight(asyncio.ensure_future(_run(call)))
        self._flights[key] = flight

        def land(task: asyncio.Task[T]) -> None:
            self._forget(key, flight)
            _hand_out(task, flight.waiters)

        flight.task.add_done_callback(land)
        return flight

    async def _wait(self, key: str, flight: _Flight[T]) -> T:
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        flight.waiters[waiter] = None
        try:
            return await waiter
        except asyncio.CancelledError:
            del flight.waiters[waiter]
            if not flight.waiters and not flight.task.done():
                # Whoever comes now must not join a call that is being called off.
                self._forget(key, flight)
                flight.task.cancel()
                # Leave only when the call has given back what it held.
                await asyncio.wait([flight.task])
            raise

    def _forget(self, key: str, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


async def _run(call: Callable[[], Awaitable[T]]) -> T:
    return await call()


def _hand_out(task: asyncio.Task[T], waiters: Iterable[asyncio.Future[T]]) -> None:
    error = None if task.cancelled() else task.exception()
    for waiter in waiters:
        if waiter.done():
            continue
        if task.cancelled():
            waiter.cancel()
        elif error is not None:
            waiter.set_exception(error)
            # One exception raised in several tasks would collect the tracebacks of all of them.
            error = copy.copy(error)
        else:
            waiter.set_result(task.result())
