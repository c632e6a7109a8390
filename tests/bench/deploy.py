"""A deploy beside pyinfra and tuned Ansible: `python -m tests.bench.deploy --hosts 10` (root).

All bring the same local hosts to the same end state over the same jump host; digests made on the hosts are compared.
In each round the sides take turns: hosts put back to bare, cold, one file changed, key changed, nothing changed.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import deploy_preview, deploy_work
from tests.bench.deploy_fleet import KEY, Booted, booted, declaration, load, root_of, states
from tests.bench.deploy_sides import (
    PlainAnsible,
    Pyinfra,
    Reach,
    Side,
    ThisProject,
    disconnect,
    floor,
    order_for,
    reach,
    run_order,
)

PROJECT = Path(__file__).resolve().parents[2]
OUT = PROJECT / "tests" / "bench" / "out"
# (what changed, the variant that it leads to), in the order in which they are run.
CHANGES = (("cold", "first"), ("one file changed", "config"), ("key changed", "key"))
UNCHANGED, KEPT = "nothing changed", "nothing changed, connections kept"
FLOOR, FLOOR_KEPT = "floor: one empty command", "floor, connections kept"
# Goals of this project's time: (what, against, its share of the other's at most).
GOALS = (
    ("cold", "pyinfra", 1.0),
    ("one file changed", "pyinfra", 0.8),
    (UNCHANGED, "pyinfra", 1.1),
    (KEPT, "pyinfra", 0.7),
    ("cold", "tuned Ansible", 1 / 2.5),
    (UNCHANGED, "tuned Ansible", 1 / 15),
    (KEPT, "tuned Ansible", 1 / 15),
)
Work = deploy_work.Work


@dataclass(slots=True)
class Measured:
    """Wall seconds of every run by what was done and side, digests of the end states, and seconds of previews."""

    walls_s: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    states: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    previews_s: dict[str, float] = field(default_factory=dict)

    def time(self, what: str, side: str, act: Callable[[], None]) -> None:
        """Times one run."""
        started_s = time.monotonic()
        act()
        taken_s = time.monotonic() - started_s
        self.walls_s.setdefault(what, {}).setdefault(side, []).append(taken_s)
        print(f"  {side:16}{what:36}{taken_s:8.1f} s", file=sys.stderr, flush=True)

    def median_s(self, what: str, side: str) -> float | None:
        """The median; None where that side was not run. Where one keeps no connection, its fresh run stands."""
        by_side = self.walls_s.get(what, {})
        if side not in by_side and what == KEPT:
            by_side = self.walls_s.get(UNCHANGED, {})
        return statistics.median(by_side[side]) if side in by_side else None

    def differing(self) -> list[str]:
        """Variants in which the sides left hosts in different states."""
        return [
            variant
            for variant, by_side in self.states.items()
            if len({json.dumps(s) for s in by_side.values()}) > 1
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--without", nargs="*", default=[], help="sides to leave out, such as 'tuned Ansible'"
    )
    parser.add_argument(
        "--preview", action="store_true", help="also preview these hosts (by tools/env --dev)"
    )
    given = parser.parse_args()
    os.chdir(PROJECT)
    # However it is ended, its hosts are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    venv = Path(output(["tools/venv", "bench"]))
    measured = Measured()
    with booted(given.hosts) as fleet, tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        measure(fleet, Path(scratch), rounds=given.rounds, venv=venv, without=given.without, into=measured)
        if given.preview:
            measured.previews_s = deploy_preview.previews_s(given.hosts)
    report = as_report(measured, hosts=given.hosts)
    OUT.mkdir(exist_ok=True)
    (OUT / f"deploy-{given.hosts}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    show(measured, hosts=given.hosts)
    if measured.differing():
        sys.exit(f"end states differ: {', '.join(measured.differing())}; the times do not compare")


def measure(
    fleet: Booted, scratch: Path, *, rounds: int, venv: Path, without: list[str], into: Measured
) -> None:
    """Every side in turn, the first of them another one in each round."""
    ours = ThisProject({name: order_for(fleet, declared) for name, declared in variants(fleet).items()})
    works = read_works(fleet, scratch)
    ours.disconnect()
    reached = reach(fleet, scratch, works["first"].claims)
    measure_floor(reached, into)
    all_sides: list[Side] = [
        ours,
        Pyinfra(works, reached, folder=scratch, program=venv / "bin" / "pyinfra"),
        PlainAnsible(works, reached, scratch),
    ]
    sides = [side for side in all_sides if side.name not in without]
    try:
        for number in range(rounds):
            for side in (*sides[number % len(sides) :], *sides[: number % len(sides)]):
                ours.wipe()
                ours.disconnect()
                take_turn(side, fleet, reached, works=works, into=into)
    finally:
        for side in sides:
            side.disconnect()


def variants(fleet: Booted) -> dict[str, Any]:
    """The declared states that the hosts go through."""
    declared = declaration(len(fleet.names))
    changed = {**declared, "vars": {"ai_max_retries": 4}}
    return {"first": load(declared), "config": load(changed), "key": load(changed, key=f"{KEY}2")}


def read_works(fleet: Booted, scratch: Path) -> dict[str, Work]:
    """Deploys one host by this project's way, and reads off it what the peers have to lay down."""
    artefacts = Path(output(["tools/artefact/build"]))
    works = {}
    for name, declared in variants(fleet).items():
        run_order(order_for(fleet, declared), limit=(fleet.names[0],))
        folder = scratch / name
        folder.mkdir()
        root = root_of(fleet.names[0])
        works[name] = deploy_work.read(root, names=fleet.names, artefacts=artefacts, scratch=folder)
    return works


def measure_floor(reached: Reach, into: Measured) -> None:
    """What every tool pays that goes through OpenSSH to every host once."""
    into.time(FLOOR, "ansible -m raw", lambda: floor(reached))
    into.time(FLOOR_KEPT, "ansible -m raw", lambda: floor(reached))
    disconnect(reached)


def take_turn(side: Side, fleet: Booted, reached: Reach, *, works: dict[str, Work], into: Measured) -> None:
    """All that is measured of one side in one round, on bare hosts."""
    for what, variant in CHANGES:
        side.disconnect()
        into.time(what, side.name, lambda variant=variant: side.deploy(variant))
        found = states(fleet, reached.ssh_config, works[variant].watched)
        into.states.setdefault(variant, {})[side.name] = found
    side.disconnect()
    into.time(UNCHANGED, side.name, lambda: side.deploy("key"))
    if side.keeps_connections:
        into.time(KEPT, side.name, lambda: side.deploy("key"))
    side.disconnect()


def goals(measured: Measured) -> list[dict[str, Any]]:
    """Each goal with what was reached."""
    rows = []
    for what, against, at_most in GOALS:
        own_s, other_s = measured.median_s(what, ThisProject.name), measured.median_s(what, against)
        if own_s is not None and other_s is not None:
            ratio = own_s / other_s
            rows.append({"what": what, "against": against, "ratio": ratio, "at_most": at_most})
    return rows


def as_report(measured: Measured, *, hosts: int) -> dict[str, Any]:
    """What is kept of a run."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "hosts": hosts,
        "cpus": os.cpu_count(),
        "load_1m_at_end": os.getloadavg()[0],
        "walls_s": measured.walls_s,
        "previews_s": measured.previews_s,
        "goals": goals(measured),
        "states_differ_in": measured.differing(),
    }


def show(measured: Measured, *, hosts: int) -> None:
    """The table, then the goals."""
    sides = (ThisProject.name, Pyinfra.name, PlainAnsible.name)
    print(f"\n{hosts} hosts, wall seconds (median){'':12}" + "".join(f"{side:>16}" for side in sides))
    for what, by_side in measured.walls_s.items():
        if "floor" in what:
            print(f"{what:42}{statistics.median(by_side['ansible -m raw']):16.1f}")
            continue
        cells = [measured.median_s(what, side) for side in sides]
        print(f"{what:42}" + "".join(f"{'–' if cell is None else f'{cell:.1f}':>16}" for cell in cells))
    deploy_preview.show(measured.previews_s)
    print(f"\n{'this project / the other':42}{'other':>16}{'ratio':>10}{'goal':>10}")
    for row in goals(measured):
        verdict = "" if row["ratio"] <= row["at_most"] else "  missed"
        ratios = f"{row['ratio']:10.2f}{'≤ ' + format(row['at_most'], '.2f'):>10}"
        print(f"{row['what']:42}{row['against']:>16}{ratios}{verdict}")


def output(argv: list[str]) -> str:
    """What a program printed; its progress goes to standard error as it comes."""
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
