"""What befalls the fleet of a simulation: each is one trouble, that ends by itself or when all is calm again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.client.coordination.simulation import World


def cut_one(world: World) -> None:
    world.cut(world.some())


def cut_some(world: World) -> None:
    for host in world.hosts:
        if world.random.random() < 0.6:
            world.cut(host)


def lend_and_cut(world: World) -> None:
    """A host that has lent its slots is cut off, and needs them; those that borrowed them use them all."""
    lender = world.some()
    cut_ms = world.random.choice([30_000, 70_000, 100_000])
    ends_ms = world.now_ms + cut_ms + world.random.choice([150_000, 250_000, 350_000])
    for host in world.hosts:
        host.wants, host.mood_until_ms = 1000, ends_ms
    lender.wants = 0

    def cut() -> None:
        if world.now_ms >= world.faulty_ms:
            return
        lender.link_up, lender.wants = False, 1000
        world.at(ends_ms - world.now_ms, lambda: world.mend(lender))

    world.at(cut_ms, cut)


def lend_to_one_and_cut(world: World) -> None:
    """All lend to one, and are cut off. It goes on alone: what it may use is seldom computed anew."""
    borrower = world.some()
    cut_ms = world.random.choice([70_000, 100_000])
    ends_ms = world.now_ms + cut_ms + 350_000
    for host in world.hosts:
        host.wants, host.mood_until_ms = 0, ends_ms
    borrower.wants = 1000

    def cut() -> None:
        if world.now_ms >= world.faulty_ms:
            return
        for host in world.hosts:
            if host is not borrower:
                host.link_up, host.wants = False, 1000
                world.at(ends_ms - world.now_ms, lambda host=host: world.mend(host))  # type: ignore[misc]

    world.at(cut_ms, cut)


def cut_all(world: World) -> None:
    span_ms = world.span_ms()
    for host in world.hosts:
        host.link_up = False
        world.at(span_ms, lambda host=host: world.mend(host))  # type: ignore[misc]


def crash(world: World) -> None:
    """Killed, and started again with its window, as the service keeps it."""
    host = world.some()
    host.alive = False
    host.call += 1

    def again() -> None:
        if not host.alive and not host.gone:
            world.start(host, remembers=False)

    world.at(world.random.choice([100, 2_000, world.span_ms()]), again)


def hand_over(world: World) -> None:
    """A new release takes over, perhaps while the engine can't be asked, perhaps again at once."""
    host = world.some()
    if world.runs(host):
        for _ in range(world.random.choice([1, 1, 2])):
            world.hand_over(host)


def stop(world: World) -> None:
    """SIGSTOP, or suspend: its clocks go on."""
    world.some().stopped_until_ms = world.now_ms + world.span_ms()


def stop_at_write(world: World) -> None:
    """A host that has borrowed is stopped between admission and write: when it goes on, others have its slots."""
    borrower = world.some()
    hang_ms, stops_ms = 61_000, world.random.choice([110_000, 180_000, 250_000])
    lends_ms = world.random.choice([30_000, 70_000])
    ends_ms = world.now_ms + lends_ms + hang_ms + stops_ms + 60_000
    for host in world.hosts:
        host.wants, host.mood_until_ms = 0, ends_ms
    borrower.wants = 1000

    def hang() -> None:
        borrower.writes_from_ms = world.now_ms + hang_ms

    def stop_there() -> None:
        borrower.stopped_until_ms = world.now_ms + stops_ms
        for host in world.hosts:
            host.wants = 1000

    world.at(lends_ms, hang)
    world.at(lends_ms + hang_ms - 1, stop_there)


def pause_machine(world: World) -> None:
    """A virtual machine is paused: what goes on is the wall clock, set right when it resumes."""
    host, span_ms = world.some(), world.span_ms()
    if host.stopped_until_ms <= world.now_ms:
        host.stopped_until_ms = world.now_ms + span_ms
        world.at(span_ms, lambda: setattr(host, "paused_ms", host.paused_ms + span_ms))


def jump(world: World) -> None:
    world.some().wall_offset_ms += world.random.choice([-(10**7), -5_000, 5_000, 10**7])


def freeze(world: World) -> None:
    """The engine is stopped; what reached it meanwhile it answers when it goes on."""
    world.engine.frozen = True
    world.at(world.span_ms(), world.thaw)


def kill_engine(world: World) -> None:
    world.restart(world.engine.books, world.random.choice([500, 5_000, world.span_ms()]))


def lose_writes(world: World) -> None:
    """A replica without the last seconds takes over."""
    recent = [books for at_ms, books in world.engine.dumps if at_ms > world.now_ms - 5_000]
    world.restart(
        (world.random.choice(recent) if recent else world.fresh_books()).copy(),
        world.random.choice([100, 15_000]),
    )


def restore_dump(world: World) -> None:
    dumps = [books for _, books in world.engine.dumps]
    world.restart(
        (world.random.choice(dumps) if dumps else world.fresh_books()).copy(),
        world.random.choice([100, 15_000]),
    )


def lose_all(world: World) -> None:
    """FLUSHALL: the same process, without its books."""
    world.engine.books = world.fresh_books()


def new_host(world: World) -> None:
    if len(world.hosts) < 9:
        world.join(remembers=world.random.random() < 0.5)


def leave(world: World) -> None:
    here = [host for host in world.hosts if not host.gone]
    if len(here) > 2:
        world.random.choice(here).gone = True


def forget_gone(world: World) -> None:
    for host in world.hosts:
        if host.gone and world.engine.up and not world.engine.frozen and world.engine.books.forget(host.name):
            host.counts = False
            world.right()


def other_share(world: World) -> None:
    host = world.some()
    host.share = world.random.choice([2, 5, 10, 20, 30])
    host.floor = min(host.floor, host.share)
    host.lease.reshare(share=host.share, floor=host.floor)
    world.right()


def many(world: World) -> None:
    for fault in world.random.sample(FAULTS[:-1], 2):
        world.say(f"with {fault.__name__}")
        fault(world)


#: `many` is the last, as it picks from those before it.
FAULTS: list[Callable[[World], None]] = [
    lend_and_cut, lend_to_one_and_cut, cut_one, cut_some, cut_all, crash, hand_over, stop, stop_at_write, pause_machine,
    jump, freeze, kill_engine, lose_writes, restore_dump, lose_all, new_host, leave, forget_gone, other_share, many,
]  # fmt: skip
