"""How arrivals and answers are judged when faults are played: the fullest minute, and what nobody could help."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.ansible.coordination_faults.measures import Arrivals, answers
from tests.ansible.coordination_faults.play import Row, check_bound

_QUOTA_RPM = 3


def _noted(path: Path, *lines: str) -> Arrivals:
    path.write_text("".join(f"{line}\n" for line in lines))
    return Arrivals.read(path)


def test_the_fullest_minute_is_the_one_that_ends_with_an_arrival(tmp_path: Path) -> None:
    """What is exactly a minute old is not in it; a line that is still being written is left for the next time."""
    times = (100.0, 130.0, 159.9, 160.0, 189.0)
    found = _noted(tmp_path / "arrivals", *(f"{at_s} /v1/chat/completions 200" for at_s in times))
    (tmp_path / "more").write_text((tmp_path / "arrivals").read_text() + "189.5 /v1/ch")
    assert Arrivals.read(tmp_path / "more") == found
    assert found.fullest(from_s=0.0, to_s=1000.0) == 4
    assert found.fullest(from_s=0.0, to_s=159.95) == 3


def test_what_was_noted_too_late_shortens_the_minute_by_no_more_than_that(tmp_path: Path) -> None:
    """Only what the window does not allow for; what was late at another time excuses nothing."""
    lines = ("100.5 /v1/x 200", "101 /v1/x 200", "102 /v1/x 200", "160.4 /v1/x 200")
    on_time = _noted(tmp_path / "arrivals", *lines)
    assert on_time.surely_fullest(from_s=0.0, to_s=1000.0) == 4
    late = _noted(tmp_path / "arrivals", *lines, "late 100.0 0.5")
    assert (late.fullest(from_s=0.0, to_s=1000.0), late.surely_fullest(from_s=0.0, to_s=1000.0)) == (4, 3)
    assert late.surely_fullest(from_s=161.0, to_s=1000.0) == late.fullest(from_s=161.0, to_s=1000.0) == 0


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"surely_fullest": 4, "fullest": 4}, "4 of 3 in the fullest minute"),
        ({"by_outcome": {"no answer: TimeoutError()": 1}}, "no answer"),
        ({"slowest_s": 6.0, "surely_slowest_s": 6.0}, "an answer took 6.00 s"),
    ],
    ids=["too many", "no answer", "too slow"],
)
def test_each_broken_promise_is_named(row: dict[str, object], told: str) -> None:
    """And what keeps them all is not."""
    well = Row("a fault", "", 0.0, "", fullest=3, surely_fullest=3, by_outcome={"200": 3}, slowest_s=5.2)
    check_bound(well, _QUOTA_RPM)
    for name, value in row.items():
        setattr(well, name, value)
    with pytest.raises(AssertionError, match="a fault") as broken:
        check_bound(well, _QUOTA_RPM)
    assert told in str(broken.value)


def test_a_caller_is_late_by_what_the_machine_did_not_keep_it_waiting(tmp_path: Path) -> None:
    """The answers of the time that is asked for."""
    path = tmp_path / "answers.jsonl"
    path.write_text(
        "".join(json.dumps(line) + "\n" for line in ([1.0, 9.0, "200", 3.0], [50.0, 51.0, "200", 0.0]))
    )
    (found,) = answers(path, from_s=0.0, to_s=10.0)
    assert (found.took_s, found.late_s) == (8.0, 5.0)
