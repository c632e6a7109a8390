"""A preview where nothing has changed, without and with a look at each host, beside an empty program's."""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.deploy_fleet import KEY, NAME, declaration
from tests.bench.preview import EMPTY, empty, preview_s
from tests.fleet.clones import clone

WITH, WITHOUT = "preview with probes", "preview without probes"
UP = "pulumi up on hosts as declared"
ROUNDS = 3
# Without probes: times an empty program's. With them: seconds more.
GOAL, GOAL_PROBES_S = 2.5, 6.0


def previews_s(hosts: int, *, key: str = f"{KEY}2") -> dict[str, float]:
    """Median wall seconds of previews of a stack that is up on the booted fleet, and of its first `up`.

    A preview with probes finds the connections that the one before it kept.
    """
    declared = {**declaration(hosts), "vars": {"ai_max_retries": 4}}
    walls_s: dict[str, list[float]] = {EMPTY: [], WITHOUT: [], WITH: []}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        nothing = empty(Path(folder))
        nothing.up("--stack", nothing.stack)
        project = clone(Path(folder) / "project", state=Path(folder) / "state", stack=NAME)
        project.pulumi("stack", "init", NAME)
        project.configure(declared)
        project.pulumi("config", "set", "--secret", "apiKey", "--stack", NAME, stdin=key)
        started_s = time.monotonic()
        project.up("--stack", NAME)
        first_up_s = time.monotonic() - started_s
        for _ in range(ROUNDS):
            walls_s[EMPTY].append(preview_s(nothing))
            for what, probe in ((WITHOUT, False), (WITH, True)):
                project.configure({**declared, "probe": probe})
                walls_s[what].append(preview_s(project))
            print(f"  previews: {[f'{walls[-1]:.1f} s' for walls in walls_s.values()]}", file=sys.stderr)
    return {UP: first_up_s} | {what: statistics.median(walls) for what, walls in walls_s.items()}


def show(walls_s: dict[str, float]) -> None:
    """The table, with the goals."""
    for what, taken_s in walls_s.items():
        print(f"{what:42}{taken_s:16.1f}")
    if walls_s:
        ratio, more_s = walls_s[WITHOUT] / walls_s[EMPTY], walls_s[WITH] - walls_s[WITHOUT]
        print(f"{'without probes / an empty program':42}{ratio:16.2f}  goal ≤ {GOAL}")
        print(f"{'probes, seconds more':42}{more_s:16.1f}  goal ≤ {GOAL_PROBES_S:g}")
