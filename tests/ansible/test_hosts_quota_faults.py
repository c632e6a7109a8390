"""Two real hosts share a quota while callers want more: a failover that loses writes, and a host that is cut off.

The other faults, each from its beginning to its end: `python -m tests.ansible.coordination_faults`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest

from tests.ansible.coordination_faults.faults import FAULTS
from tests.ansible.coordination_faults.play import Play, check_bound
from tests.ansible.coordination_faults.rig import running
from tests.ansible.real_fleet import Fleet

pytestmark = [pytest.mark.hosts, pytest.mark.slow]


def test_no_minute_has_more_than_the_quota_and_nobody_hangs_whatever_ails_the_engine(
    fleet: Fleet, tmp_path: Path
) -> None:
    """One host has borrowed from the other when a replica takes over that lacks the last second; in the middle of that
    the other one is cut off. Each is told where people look, and over when it is mended."""
    failover, cut_off = FAULTS["failover"], replace(FAULTS["cut-off-one"], until="floor")
    with running(fleet, tmp_path, prepare=failover.prepare) as rig:
        play, began_s = Play(rig), monotonic()
        play.lend()
        row = play.begin(failover)
        play.reach(failover, row)
        cut = play.begin(cut_off)
        play.reach(cut_off, cut)
        play.recover(cut_off, cut)
        play.close(cut_off, cut)
        play.recover(failover, row)
        play.close(failover, row)
        row.began_s = began_s
        play.count(row)
        check_bound(row, rig.quota_rpm)
        assert row.by_outcome["200"] > rig.quota_rpm
