"""`python -m tests.client.gateway.simulation --seeds 10000`: many runs; `--seed N` replays one, with its story."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

from tests.client.gateway.simulation.world import World

_CHUNK = 10


def broken(seeds: range) -> list[str]:
    """The stories of those seeds that break a promise."""
    return [story for is_broken, story in played(seeds) if is_broken]


def told(seed: int) -> str:
    """All that happened."""
    [(_, story)] = played(range(seed, seed + 1))
    return story


def played(seeds: range) -> list[tuple[bool, str]]:
    """Whether each broke a promise, and its story.

    They are played in a process of their own: what was suspended in processes of the simulation that were killed
    must never be freed, since its `finally` would run.
    """
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=_play, args=(seeds, sender))
    child.start()
    sender.close()
    try:
        stories: list[tuple[bool, str]] = receiver.recv()
    except EOFError:
        stories = [(True, f"seeds {seeds.start} to {seeds.stop - 1}: the process that played them is gone")]
    child.join()
    return stories


def _play(seeds: range, sender: Connection) -> None:
    logging.disable()
    worlds = [World(seed).run() for seed in seeds]
    sender.send([(bool(world.broken), world.story()) for world in worlds])
    sender.close()
    os._exit(0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.client.gateway.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many [200]")
    parser.add_argument("--first", type=int, default=0, help="the first of them [0]")
    parser.add_argument("--seed", type=int, help="just this one, with its story")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes [one a core]")
    given = parser.parse_args()
    logging.disable()
    if given.seed is not None:
        world = World(given.seed).run()
        print(world.story(), flush=True)
        os._exit(bool(world.broken))
    last = given.first + given.seeds
    chunks = [range(at, min(at + _CHUNK, last)) for at in range(given.first, last, _CHUNK)]
    failed = 0
    with ThreadPoolExecutor(given.jobs) as pool:
        for done, stories in enumerate(pool.map(broken, chunks), 1):
            failed += len(stories)
            for story in stories:
                print(story.partition("\n")[0][:600], flush=True)
            print(f"\r{chunks[done - 1].stop - given.first} seeds, {failed} failed", end="", file=sys.stderr)
    print(f"\n{given.seeds} seeds from {given.first}: {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
