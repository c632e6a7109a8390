"""What must be true when nobody calls any more."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from ai_client.admission.breaker import BreakerState
from ai_client.contract.events import Admitted, BreakerChanged, Sent
from ai_client.gateway.process.service import Service
from tests.client.gateway.simulation.callers import UNIX
from tests.client.gateway.simulation.manager import STOP_S, WATCHDOG_S

if TYPE_CHECKING:
    from tests.client.gateway.simulation.callers import Ending
    from tests.client.gateway.simulation.process import Process
    from tests.client.gateway.simulation.world import World

WINDOW_S = 60.0
# After the deadline: the app's own grace, and the way to the caller and back.
DEADLINE_SLACK_S = 0.25 + 0.35
BUFFER_S = 1.0
# A new process is there.
RESTART_SLACK_S = 1.5
# The manager and the next process look from time to time; it may have shown life just before it stood.
FOUND_OUT_SLACK_S = 10.0
# It may be that the whole unit is ended, for the main process.
FOUND_OUT_S = WATCHDOG_S + FOUND_OUT_SLACK_S + STOP_S
# Half of the configuration's drain_seconds.
STAND_IN_S = 15.0


def check_all(world: World) -> None:
    """Notes in `world.broken` what is not."""
    for check in (check_endings, check_rates, check_probes, check_serving, check_standing):
        check(world)
    for service in world.processes.services:
        check_idle(world, service)


def check_endings(world: World) -> None:
    """Each request ended once, in time, and with an answer of its own."""
    for caller in world.callers:
        world.broken += caller.faults
    for ending in world.endings:
        if ending.what == "hung" and ending.process is not None and is_left_alone(world, ending.process):
            continue
        if ending.what in ("", "hung"):
            world.broken.append(f"{ending}: no ending")
        elif ending.what == "cut" and _met_a_death(world, ending):
            continue  # of the process that it came to, or of the one that it was passed on to
        elif ending.what in ("cut", "refused") and not ending.may_be_cut:
            world.broken.append(f"{ending}: without an answer")
        elif _met_a_death(world, ending) or _waited_for_a_process(world, ending):
            continue
        elif any(code in ending.body for code in (b'"internal_error"', b'"handover_failed"')):
            world.broken.append(f"{ending}: a fault of the service's own")
        took_s = ending.at_s - ending.asked_s
        # A stream that has begun has the time to settle that the configuration gives it.
        slack_s = DEADLINE_SLACK_S + (BUFFER_S if ending.is_stream else 0.0)
        if ending.is_patient and ending.deadline_s is not None and took_s > ending.deadline_s + slack_s:
            world.broken.append(f"{ending}: its deadline was {ending.deadline_s} s")


def _met_a_death(world: World, ending: Ending) -> bool:
    """A process stood or died while it was under way: what is answered may come late, or name that."""
    return any(
        min(process.frozen_at_s or math.inf, process.died_at_s) <= ending.at_s
        and process.died_at_s >= ending.asked_s - RESTART_SLACK_S
        for process in world.processes.manager.processes
        if process.was_killed
    )


def _waited_for_a_process(world: World, ending: Ending) -> bool:
    """Nobody accepted for a while; `check_serving` says whether that may be."""
    gaps = [gap for gaps in world.network.gaps.values() for gap in gaps]
    return any(from_s <= ending.at_s and (to_s or math.inf) >= ending.asked_s for from_s, to_s in gaps)


def check_serving(world: World) -> None:
    """While there are sockets and a process lives, somebody accepts.

    Except for a moment, while one that stands has not been found out, and while the service is being stopped.
    """
    manager = world.processes.manager
    excuses = [(each.frozen_at_s, each.died_at_s) for each in manager.processes if each.is_frozen]
    excuses += manager.stops
    for from_s, to_s in world.network.gaps.get(UNIX, []):
        end_s = world.loop.time() if to_s is None else to_s
        # One that stands in has so long for those who came meanwhile; the next one is started as it ends.
        stood_in = any(from_s <= each.ended_at_s <= end_s for each in manager.processes)
        excused_s = STAND_IN_S if stood_in else 0.0
        excused_s += sum(max(0.0, min(end_s, b) - max(from_s, a)) for a, b in excuses)
        if end_s - from_s - excused_s > RESTART_SLACK_S:
            world.broken.append(f"nobody served from {from_s - 1000:.3f} to {end_s - 1000:.3f} s")


def check_standing(world: World) -> None:
    """One that stands is ended: the main process by the manager, one that has handed over by the one after it."""
    for process in world.processes.manager.processes:
        ended_s = min(process.died_at_s, world.loop.time())
        stood_s = ended_s - process.frozen_at_s if process.is_frozen else 0.0
        if stood_s > FOUND_OUT_S and not is_left_alone(world, process) and not _has_let_go(process):
            world.broken.append(f"process {process.pid} stood for {stood_s:.3f} s")


def _has_let_go(process: Process) -> bool:
    """It stands while it closes its files, with no caller left and another one serving: it has said that it ends."""
    service = process.service
    return (
        service is not None
        and service._next.is_over
        and service._app.is_draining
        and not service._server.connections
    )


def is_left_alone(world: World, process: Process) -> bool:
    """It stands, and the one that came after it was killed, or stood as well, before it could find that out."""
    if not process.is_frozen:
        return False
    after = [each for each in world.processes.manager.processes if each.before is process]
    ends_s = [min(each.died_at_s, each.frozen_at_s if each.is_frozen else math.inf) for each in after]
    return bool(after) and max(ends_s) < process.frozen_at_s + WATCHDOG_S + FOUND_OUT_SLACK_S


def check_rates(world: World) -> None:
    """As the provider counts, no minute holds more than the highest limit that was in force in it."""
    arrivals = world.provider.arrivals
    for index, at_s in enumerate(arrivals):
        count = index + 1 - bisect_right(arrivals, at_s - WINDOW_S)
        most = max(rpm for rpm, from_s, to_s in world.rates if from_s <= at_s and to_s > at_s - WINDOW_S - 1)
        if count > most and not _was_forgotten(world, at_s):
            world.broken.append(f"{count} requests in the minute before {at_s - 1000:.3f} s, of {most}")
            return


def _was_forgotten(world: World, at_s: float) -> bool:
    """A process was killed in that minute on a disk that had no room for what it sent."""
    died = [each.died_at_s for each in world.processes.manager.processes if not each.remembered]
    return any(at_s - WINDOW_S - 1 <= died_at_s <= at_s for died_at_s in died)


def check_probes(world: World) -> None:
    """While a breaker is half open, one request at a time is under way of those that were admitted since."""
    for events in world.events:
        _check_probes(world, events)


def _check_probes(world: World, events: list[tuple[float, Any]]) -> None:
    half_open: set[str] = set()
    admitted: dict[str, set[str]] = {}
    under_way: dict[str, set[str]] = {}
    for at_s, event in events:
        model = event.model
        if isinstance(event, BreakerChanged):
            half_open.discard(model)
            if event.after == BreakerState.HALF_OPEN:
                half_open.add(model)
            admitted[model], under_way[model] = set(), set()
        elif model not in half_open:
            continue
        elif isinstance(event, Admitted):
            admitted[model].add(event.request_id)
        elif not isinstance(event, Sent):
            under_way[model].discard(event.request_id)
        elif event.request_id in admitted[model]:
            under_way[model].add(event.request_id)
            if len(under_way[model]) > 1:
                world.broken.append(f"{len(under_way[model])} probes of {model} at {at_s - 1000:.3f} s")


def check_idle(world: World, service: Service) -> None:
    """Nothing is held for anybody."""
    held: dict[str, Any] = {}
    pipeline = service._assembly.client._pipeline
    answers = pipeline._answers
    stats = service._assembly.client.get_stats()
    held["in flight"] = pipeline._scheduler.in_flight
    held["queued"] = pipeline._scheduler.queued
    held["in lanes"] = sum(lane.in_flight for lane in pipeline._lanes._lanes.values())
    held["pool"] = stats["pool"]["in_use"] + stats["pool"]["waiting"]
    held["reserves"] = service._assembly.ledger.stats().open_entries
    held["flights"] = len(answers._flights) + len(answers._streams) + len(answers._merging)
    held["arriving"] = len(answers._streams._arriving)
    held["calls"] = len(service._app._calls)
    held["users"] = service._app.runtime.users.count
    held["paced"] = service._pacer.waiting
    held["answering"] = service._server.requests_in_flight
    held["bodies"] = service._app.bodies.taken
    held["answers"] = service._assembly.transport._room.taken
    held["remembered"] = len(service._window._reserved) if not service._window._counts_tokens else 0
    held["audit lines"] = (
        0
        if service._next.is_over or service._monitoring.audit is None
        else len(service._monitoring.audit._waiting)
    )
    found = {name: count for name, count in held.items() if count}
    if found:
        world.broken.append(f"something is held for nobody: {found}")
