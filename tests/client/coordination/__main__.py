"""`python -m tests.client.coordination --seeds 100000`: many runs of the simulation; `--seed N` replays one.

With `--budgets` the simulation of budgets that hosts share, with `--batches` that of batches.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.client.coordination import batch_simulation, budget_simulation
from tests.client.coordination.simulation import World

_CHUNK = 50


Simulated = type[World] | type[budget_simulation.World] | type[batch_simulation.World]


def broken(seeds: range, simulated: Simulated = World) -> list[str]:
    """What the simulation has to say of those seeds that break a promise."""
    found = []
    for seed in seeds:
        try:
            simulated(seed).run().check()
        except AssertionError as exc:
            found.append(str(exc))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.client.coordination", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many [1000]")
    parser.add_argument("--first", type=int, default=0, help="the first of them [0]")
    parser.add_argument("--seed", type=int, help="just this one, with its story")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes [one a core]")
    parser.add_argument("--budgets", action="store_true", help="of budgets that hosts share")
    parser.add_argument("--batches", action="store_true", help="of batches that hosts share")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    simulated: Simulated = budget_simulation.World if given.budgets else World
    if given.batches:
        simulated = batch_simulation.World
    if given.seed is not None:
        world = simulated(given.seed).run()
        print("\n".join(world.log))
        stories = broken(range(given.seed, given.seed + 1), simulated)
        print("\n".join(stories) or f"seed {given.seed}: kept; {world.calls} calls")
        return bool(stories)
    last = given.first + given.seeds
    chunks = [range(at, min(at + _CHUNK, last)) for at in range(given.first, last, _CHUNK)]
    failed = 0
    with ProcessPoolExecutor(given.jobs) as pool:
        for done, stories in enumerate(pool.map(partial(broken, simulated=simulated), chunks), 1):
            failed += len(stories)
            for story in stories:
                print(story, flush=True)
            print(f"\r{chunks[done - 1].stop - given.first} seeds, {failed} failed", end="", file=sys.stderr)
    print(f"\n{given.seeds} seeds from {given.first}: {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
