"""Single flight: one upstream call for identical requests, whoever leaves."""

import asyncio
from collections.abc import Iterator

import pytest

from ai_client.errors import AIClientError, DeadlineExceeded, ServerError
from ai_client.sharing.single_flight import Flights


def is_deadline(error: AIClientError) -> bool:
    return isinstance(error, DeadlineExceeded)


class Upstream:
    """Counts calls; each ends when the test says so."""

    def __init__(self) -> None:
        self.calls: list[asyncio.Future[str]] = []
        self.cancelled = 0

    async def __call__(self) -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.calls.append(answer)
        try:
            return await answer
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def flights() -> Iterator[Flights[str]]:
    made: Flights[str] = Flights(is_leaders_own=is_deadline)
    yield made
    assert len(made) == 0


async def turn(times: int = 8) -> None:
    """Lets everything run that can."""
    for _ in range(times):
        await asyncio.sleep(0)


async def test_many_waiters_share_one_call(flights: Flights[str], upstream: Upstream) -> None:
    """One call; the first waiter is told that it was its own, the others that it was shared."""
    waiters = [asyncio.create_task(flights.run("k", upstream)) for _ in range(100)]
    await turn()
    upstream.calls[0].set_result("answer")
    results = await asyncio.gather(*waiters)
    assert len(upstream.calls) == 1
    assert results == [("answer", False)] + [("answer", True)] * 99


async def test_other_keys_fly_on_their_own(flights: Flights[str], upstream: Upstream) -> None:
    """And a key flies again once its flight has landed."""
    waiters = [asyncio.create_task(flights.run(key, upstream)) for key in ("a", "b")]
    await turn()
    for number, call in enumerate(upstream.calls):
        call.set_result(str(number))
    assert await asyncio.gather(*waiters) == [("0", False), ("1", False)]
    again = asyncio.create_task(flights.run("a", upstream))
    await turn()
    upstream.calls[2].set_result("new")
    assert await again == ("new", False)


async def test_the_first_waiter_s_cancellation_leaves_the_call_to_the_others(
    flights: Flights[str], upstream: Upstream
) -> None:
    """The call goes on, and is not made a second time."""
    first, second = (asyncio.create_task(flights.run("k", upstream)) for _ in range(2))
    await turn()
    first.cancel()
    await turn()
    assert first.cancelled()
    upstream.calls[0].set_result("answer")
    assert await second == ("answer", False), "it is the second one's now"
    assert len(upstream.calls) == 1
    assert upstream.cancelled == 0


async def test_the_call_is_cancelled_with_its_last_waiter(flights: Flights[str], upstream: Upstream) -> None:
    """And that waiter leaves only when the call has cleaned up after itself."""
    waiters = [asyncio.create_task(flights.run("k", upstream)) for _ in range(3)]
    await turn()
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)
    assert upstream.cancelled == 1


async def test_one_who_comes_while_a_call_is_called_off_makes_a_new_one(
    flights: Flights[str], upstream: Upstream
) -> None:
    """Nobody joins a call that is being cancelled."""
    first = asyncio.create_task(flights.run("k", upstream))
    await turn()
    first.cancel()
    await asyncio.sleep(0)
    second = asyncio.create_task(flights.run("k", upstream))
    await turn()
    upstream.calls[-1].set_result("new")
    assert await second == ("new", False)
    assert len(upstream.calls) == 2


async def test_a_failure_is_everybody_s(flights: Flights[str], upstream: Upstream) -> None:
    """One call failed: all get the error, each as an exception of its own."""
    waiters = [asyncio.create_task(flights.run("k", upstream)) for _ in range(3)]
    await turn()
    upstream.calls[0].set_exception(ServerError("upstream", "is down", status=503))
    errors = await asyncio.gather(*waiters, return_exceptions=True)
    assert [getattr(error, "status", None) for error in errors] == [503] * 3
    assert len({id(error) for error in errors}) == 3
    assert len(upstream.calls) == 1


async def test_the_leader_s_own_deadline_is_not_the_others(flights: Flights[str], upstream: Upstream) -> None:
    """One of those left flies again, for all of them."""
    waiters = [asyncio.create_task(flights.run("k", upstream)) for _ in range(3)]
    await turn()
    upstream.calls[0].set_exception(DeadlineExceeded("request", deadline_s=1, phase="queue"))
    await turn()
    assert len(upstream.calls) == 2
    upstream.calls[1].set_result("late")
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert isinstance(results[0], DeadlineExceeded)
    assert results[1:] == [("late", False), ("late", True)]


async def test_closing_cancels_every_call_and_waiter(flights: Flights[str], upstream: Upstream) -> None:
    """Nothing flies on after the client was closed."""
    waiters = [asyncio.create_task(flights.run(key, upstream)) for key in "aab"]
    await turn()
    await flights.aclose()
    await asyncio.wait(waiters)
    assert all(waiter.cancelled() for waiter in waiters)
    assert upstream.cancelled == 2
