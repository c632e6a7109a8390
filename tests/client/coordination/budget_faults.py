"""What befalls hosts that share budgets: each is one trouble, that ends by itself or when all is calm again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ai_client.coordination.budget_books import BudgetBooks
from tests.client.coordination.budget_host import File

if TYPE_CHECKING:
    from tests.client.coordination.budget_simulation import World


def cut_one(world: World) -> None:
    host = world.some()
    host.link_up = False
    world.at(world.random.choice([5_000, 30_000, 200_000]), lambda: setattr(host, "link_up", True))


def cut_most(world: World) -> None:
    for host in world.hosts[1:]:
        host.link_up = False
        span_ms = world.random.choice([5_000, 30_000, 200_000])
        world.at(span_ms, lambda host=host: setattr(host, "link_up", True))  # type: ignore[misc]


def crash(world: World) -> None:
    """Killed, and started again over its file."""
    world.kill(world.some())


def crash_all(world: World) -> None:
    for host in world.hosts:
        world.kill(host)


def hand_over(world: World) -> None:
    """Another process goes on over the same file, while a call of the one before is still under way."""
    host = world.some()
    if host.is_alive:
        host.process += 1
        world.begin(host)


def stop(world: World) -> None:
    """SIGSTOP, or a machine that is suspended."""
    host = world.some()
    if not world.is_sure(host):
        host.stopped_until_ms = world.now_ms + world.random.choice([2_000, 30_000, 120_000])


def clock_jumps(world: World) -> None:
    world.some().wall_offset_s += world.random.choice([-30.0, 5.0, 90.0])


def join_one(world: World) -> None:
    """A host that was never there."""
    if len(world.hosts) < 9:
        world.join()


def join_and_cut(world: World) -> None:
    """It spends what it gets, and nobody hears of it any more; the books lose what came last."""
    if len(world.hosts) >= 9:
        return
    host = world.join()
    host.wants = 100
    cut_ms = world.random.choice([1_000, 3_000, 8_000, 20_000])

    def cut() -> None:
        host.link_up = False
        if not world.is_tame:
            lose_writes(world)

    world.at(cut_ms, cut)
    world.at(cut_ms + 100_000, lambda: setattr(host, "link_up", True))


def join_unseen(world: World) -> None:
    """A new host is granted something while no other can hear of it; then the books lose it, and it is cut off."""
    if len(world.hosts) >= 9 or world.is_tame:
        return
    others = list(world.hosts)
    for host in others:
        host.link_up, host.wants = False, 0
    newcomer, most = world.join(), max(world.limits.values()) // 10
    newcomer.wants = most

    def lose() -> None:
        before = [books for at_ms, books in world.engine.dumps if newcomer.name not in books.fellows]
        newcomer.link_up = False
        if before:
            world.restart(before[-1].copy())
        for host in others:
            host.link_up, host.wants = True, most

    world.at(world.random.choice([6_000, 12_000]), lose)
    world.at(150_000, lambda: setattr(newcomer, "link_up", True))


def amounts_change(world: World) -> None:
    """A new limit reaches one host after the other: each starts anew with it."""
    shape = world.random.choice(sorted(world.limits))
    world.limits[shape] = max(1_000, int(world.limits[shape] * world.random.choice([0.5, 0.8, 2])))
    for number, host in enumerate(world.hosts):

        def change(host=host, limit=world.limits[shape]) -> None:  # type: ignore[no-untyped-def]
            host.limits[shape] = limit
            if host.is_alive:
                host.process += 1
                world.begin(host)

        world.at(2_000 * number, change)


def restart_engine(world: World) -> None:
    """Another process, that has all."""
    world.restart(world.engine.books)


def lose_writes(world: World) -> None:
    """A replica without the last writes takes over."""
    lost_ms = world.random.choice([1_000, 5_000, 20_000])
    before = [books for at_ms, books in world.engine.dumps if at_ms <= world.now_ms - lost_ms]
    world.restart(before[-1].copy() if before else BudgetBooks())


def restore_dump(world: World) -> None:
    """Of any time."""
    dumps = list(world.engine.dumps)
    world.restart(world.random.choice(dumps)[1].copy() if dumps else BudgetBooks())


def empty_engine(world: World) -> None:
    world.restart(BudgetBooks())


def empty_and_join(world: World) -> None:
    """The first to call is one that knows of nobody, and most others are cut off."""
    if len(world.hosts) >= 9:
        return
    cut_most(world)
    world.restart(BudgetBooks())
    world.join()
    for host in world.hosts:
        host.wants = 400


def lose_ledger(world: World) -> None:
    """A host's disk is another one: what it was granted is gone with it."""
    host = world.some()
    if host.is_alive:
        host.killed.add(host.process)
        host.file = File(f"{host.name}.{world.now_ms}")
        host.process += 1
        world.begin(host)


def leave(world: World) -> None:
    """For good; it is forgotten once it is silent."""
    here = [host for host in world.hosts if not host.is_gone]
    if len(here) > 2:
        host = world.random.choice(here)
        host.is_gone = True
        world.at(160_000, lambda: world.engine.books.forget(host.name))


Fault = Callable[["World"], None]
_COMMON: list[Fault] = [
    cut_one, cut_most, crash, crash, crash_all, hand_over, stop, clock_jumps, join_one, join_and_cut, join_unseen,
    amounts_change, restart_engine,
]  # fmt: skip
#: The books may be lost, in part or whole.
FAULTS: list[Fault] = [*_COMMON, lose_writes, lose_writes, restore_dump, empty_engine, empty_and_join]
#: They are not: hosts may lose their ledgers, and leave for good.
TAME_FAULTS: list[Fault] = [*_COMMON, lose_ledger, leave]
