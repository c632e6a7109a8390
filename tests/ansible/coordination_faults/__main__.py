"""`python -m tests.ansible.coordination_faults`: faults of a shared quota on two real hosts, under a load that goes on.

Needs root. `--faults NAME …` plays those alone. Prints a table, and exits with 1 where a promise broke.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from pathlib import Path
from time import monotonic

from tests.ansible.coordination_faults.faults import FAULTS
from tests.ansible.coordination_faults.measures import Arrivals
from tests.ansible.coordination_faults.play import Play, Row
from tests.ansible.coordination_faults.rig import Rig, running
from tests.ansible.real_fleet import HOSTS, built_artefact, raised
from tests.tools.hosts_control import own_fleet

_LINK_OCTET = int(os.environ.get("HOSTS_TESTS_LINK_OCTET", "14"))


def played(rig: Rig, names: list[str]) -> list[str]:
    """Which promises broke. One that a fault leaves broken ends it all."""
    play, broken = Play(rig), list[str]()
    for name in names:
        fault, began_s = FAULTS[name], monotonic()
        fault.prepare(rig)
        play.lend()
        row = play.begin(fault)
        is_over = False
        try:
            play.reach(fault, row)
            play.recover(fault, row)
            play.settle()
            is_over = True
        except AssertionError as exc:
            broken.append(f"{name}: {exc}")
        try:
            play.close(fault, row)
        except AssertionError as exc:
            broken.append(f"{name}: {exc}")
        show(row, rig.quota_rpm, seconds=monotonic() - began_s)
        if not is_over:
            break
    return broken + over_all(rig)


def over_all(rig: Rig) -> list[str]:
    """Whether the bound broke at any time, also between two faults."""
    fullest = Arrivals.read(rig.arrivals_path).surely_fullest(from_s=0.0, to_s=math.inf)
    print(f"\nfullest minute of all: {fullest} of {rig.quota_rpm}", flush=True)
    return [f"{fullest} of {rig.quota_rpm} in a minute"] if fullest > rig.quota_rpm else []


def show(row: Row, quota_rpm: int, *, seconds: float) -> None:
    """One fault, as it is told."""
    print(f"\n{row.name}: {row.what} ({seconds:.0f} s)")
    print(f"  fullest minute {row.fullest} of {quota_rpm}; noted up to {1000 * row.late_s:.0f} ms late")
    slowest = f"{row.slowest_s:.2f} s, {row.surely_slowest_s:.2f} s where the machine was not late"
    print(f"  answers {row.by_outcome}; slowest {slowest}")
    for host, lines in row.told.items():
        for line in lines:
            print(f"  {host} {line}")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.ansible.coordination_faults", description=__doc__)
    parser.add_argument(
        "--faults", nargs="+", choices=sorted(FAULTS), default=list(FAULTS), metavar="NAME", help="[all]"
    )
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="acq-") as folder,
        own_fleet("faults", _LINK_OCTET) as control,
        raised(control, built_artefact(), HOSTS) as fleet,
        running(fleet, Path(folder)) as rig,
    ):
        broken = played(rig, given.faults)
    print("\n".join(["", *broken]) if broken else "\nall promises were kept")
    return bool(broken)


if __name__ == "__main__":
    raise SystemExit(main())
