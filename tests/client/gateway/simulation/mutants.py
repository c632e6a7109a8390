"""Rules that are left out, one at a time: what the simulation is worth is that it misses none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from ai_client.admission.breaker import BreakerState, CircuitBreaker
from ai_client.admission.scheduler import Scheduler
from ai_client.admission.window import SlidingWindow
from ai_client.calls.attempt import Attempt
from ai_client.calls.streams import UpstreamStream
from ai_client.gateway.app.app import GatewayApp, Users
from ai_client.gateway.app.forwarder import Forwarder
from ai_client.gateway.process.handover import Inheritance, Successor
from ai_client.gateway.process.succession import Succession
from ai_client.gateway.process.window_memory import WindowMemory
from ai_client.ledger.ledger import SpendLedger
from ai_client.sharing.single_flight import Flights
from ai_client.transport.base import Pool


def _nothing(*_: Any, **__: Any) -> None:
    """Instead of a rule."""


def _withdraw_and_keep(attempt: Attempt) -> None:
    attempt._ended = True
    attempt._end_money(executed=False)


def _any_probe(breaker: CircuitBreaker, now_s: float) -> int | None:
    if breaker.state is BreakerState.OPEN and now_s >= breaker._opened_at_s + breaker._open_s:
        breaker._become(BreakerState.HALF_OPEN)
    return None if breaker.state is BreakerState.OPEN else breaker.period


async def _no_deadline(_: GatewayApp, __: Any, work: Any, *, grace_s: float) -> None:
    del grace_s
    await work


async def _close_at_once(forwarder: Forwarder) -> None:
    await forwarder._session.close()


async def _leave_it_flying(_: Any, __: str, flight: Any, waiter: Any) -> None:
    del flight.waiters[waiter]


async def _end_money_only(stream: UpstreamStream, error: BaseException | None) -> None:
    """The connection stays."""
    stream._is_over = True
    if error is None:
        stream.cost_usd = stream._attempt.answered(stream.usage, headers=stream.headers, passed_bytes=0)
    else:
        stream._attempt.failed(error)


async def _is_never_lost(successor: Successor) -> bool:
    await successor._channel.tell({"main": True})
    return False


async def _at_once(_: Succession, *, stop_s: float) -> float:
    return stop_s


def _no_restore(*_: Any, **__: Any) -> int:
    return 0


#: What is left out: where, by what name, and what is there instead.
MUTANTS: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "a withdrawn attempt keeps its permit": (Attempt, "withdraw", _withdraw_and_keep),
    "a cut stream keeps its connection": (UpstreamStream, "_end", _end_money_only),
    "what may be billed is given back": (
        SpendLedger,
        "billed_unknown",
        lambda led, e, _=None: led.release(e),
    ),
    "half open, all are probes": (CircuitBreaker, "allow", _any_probe),
    "nobody sees to deadlines": (GatewayApp, "_by_deadline", _no_deadline),
    "who has handed over admits on": (Scheduler, "hand_over", _nothing),
    "what is passed on is dropped": (Forwarder, "aclose", _close_at_once),
    "the next process knows no window": (SlidingWindow, "restore", _no_restore),
    "a flight goes on for nobody": (Flights, "_leave", _leave_it_flying),
    "a place in the pool is lost": (Pool, "give_back", _nothing),
    "users of a client are not counted out": (Users, "leave", _nothing),
    "nobody stands in for the next process": (Successor, "is_lost", _is_never_lost),
    "nobody looks after the one before": (Inheritance, "_end_it", _nothing),
    "who is to end for another one accepts no more": (Succession, "finish", _at_once),
    "a disk that was full once is never tried again": (WindowMemory, "_try_again", _nothing),
}


@contextmanager
def missing(name: str) -> Iterator[None]:
    """Without that rule while it lasts."""
    owner, attribute, instead = MUTANTS[name]
    with patch.object(owner, attribute, instead):
        yield
