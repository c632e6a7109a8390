"""Plays one fault under load, and says what became of the quota, of callers, and what the hosts told of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic, time
from typing import Any

from tests.ansible.coordination_faults.callers import DEADLINE_S
from tests.ansible.coordination_faults.faults import Fault
from tests.ansible.coordination_faults.measures import Answer, Arrivals, answers, outcomes
from tests.ansible.coordination_faults.rig import SHARE_RPM, Rig, Said

# Parts of the quota that callers want: one host borrows from the other; then both want more than their share.
LENDING = (1.1, 0.15)
BOTH = (0.75, 0.75)
_LENT_RPM = 1.3 * SHARE_RPM
_LENT_WITHIN_S = 240.0
# A lease, and what comes until it is noticed; T + span; new books.
_REACHED_WITHIN_S = {"leased": 60.0, "floor": 75.0, "static": 240.0}
_BACK_WITHIN_S = 60.0
_SURE_WITHIN_S = 150.0
# Metrics whose turns are told.
_TURNS = ("leased", "recovering")
# How long a fault that hosts may not notice is let to last, and each of the others where hosts use their own share: in
# that time what others may have kept of it would show.
_LASTS_S = 60.0
# What each of them says while the engine does not know what was lent.
_OF_NEW_BOOKS = {
    "log": "quota_recovering",
    "journal": "quota_recovering",
    "metrics": "recovering 0 → 1 → 0",
    "status": "recovering",
    "health": "nothing new is lent",
}
# A gateway and its caller take this long beside the wait, on a machine that is never late.
_BESIDE_S = 0.5


@dataclass
class Row:
    """What is to be told of one fault."""

    name: str
    what: str
    began_s: float
    from_wall: str
    ended_s: float = 0.0
    fullest: int = 0
    surely_fullest: int = 0
    late_s: float = 0.0
    by_outcome: dict[str, int] = field(default_factory=dict)
    slowest_s: float = 0.0
    #: Of all that the machine did not keep waiting.
    surely_slowest_s: float = 0.0
    stall_s: float = 0.0
    told: dict[str, list[str]] = field(default_factory=dict)


class Play:
    """One after another, under a load that goes on."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    def lend(self) -> None:
        """Until one host has borrowed what the other does not use."""
        began_s, rig = monotonic(), self.rig
        rig.ask_for(*LENDING)
        rig.until(
            "more than its share",
            lambda said: said["status"]["rpm"] > _LENT_RPM,
            hosts=rig.hosts[:1],
            from_s=began_s,
            deadline_s=_LENT_WITHIN_S,
        )

    def begin(self, fault: Fault) -> Row:
        """It happens, while callers of both hosts want more than their share."""
        row = Row(fault.name, "", monotonic(), datetime.fromtimestamp(time(), UTC).strftime("%FT%T.000Z"))
        self.rig.ask_for(*BOTH)
        row.what = fault.begin(self.rig)
        return row

    def reach(self, fault: Fault, row: Row) -> None:
        """Until the hosts that it hits are where it is to bring them, and have said why."""
        hosts, reason = fault.hit(self.rig), fault.reason

        def is_there(said: Said) -> bool:
            status = said["status"]
            return status["mode"] == fault.until and (reason is None or reason in (status["trouble"] or ""))

        if reason is None and not fault.loses_books:
            self._last(is_there, hosts, from_s=row.began_s)
        elif fault.loses_books and reason is None:
            self._until_new(fault, row, monotonic() - 1)
        else:
            within_s = _REACHED_WITHIN_S[fault.until]
            self.rig.until(
                f"{fault.until}, {reason}", is_there, hosts=hosts, from_s=row.began_s, deadline_s=within_s
            )
            for host in hosts:
                check = self.rig.health_check(host)
                assert (check["ok"], reason in check["detail"]) == (False, True), check
                row.told.setdefault(host, []).append(f"health check: {check['detail']}")
            if fault.until == "static":
                self._last(is_there, hosts, from_s=monotonic())

    def _last(self, is_there: Callable[[Said], bool], hosts: Sequence[str], *, from_s: float) -> None:
        """It is let to go on."""
        since_s = from_s + _LASTS_S
        self.rig.until("it lasts", is_there, hosts=hosts, from_s=since_s, deadline_s=2 * _LASTS_S)

    def _until_new(self, fault: Fault, row: Row, from_s: float) -> None:
        """Until all have met books that know nothing, and say so."""
        self.rig.until(
            "the engine's memory is new",
            lambda said: bool(said["status"]["recovering"]),
            hosts=fault.hit(self.rig),
            from_s=from_s,
        )

    def recover(self, fault: Fault, row: Row) -> None:
        """It is mended: all are as before."""
        mended_s = monotonic()
        fault.mend(self.rig)
        if fault.loses_books:
            self._until_new(fault, row, row.began_s if fault.reason is None else mended_s)
        self.rig.until(
            "leased, without trouble",
            lambda said: is_well(said, sure=fault.loses_books),
            hosts=self.rig.hosts,
            from_s=monotonic(),
            deadline_s=_SURE_WITHIN_S if fault.loses_books else _BACK_WITHIN_S,
        )

    def settle(self) -> None:
        """A minute more of the same load: coming back must be no burst."""
        since_s = monotonic() + _LASTS_S
        self.rig.until(
            "a minute after", lambda _: True, hosts=self.rig.hosts, from_s=since_s, deadline_s=120.0
        )

    def close(self, fault: Fault, row: Row) -> Row:
        """What there is to tell, and what must be true of it."""
        rig = self.rig
        row.ended_s = monotonic()
        for host in rig.hosts:
            row.told.setdefault(host, []).extend(self._told(host, row))
            row.stall_s = max(row.stall_s, *(each["stall_s"] for each in rig.said(host, from_s=row.began_s)))
        self.count(row)
        check_bound(row, rig.quota_rpm)
        self.check_told(fault, row)
        return row

    def count(self, row: Row) -> None:
        """Arrivals and answers, from its beginning to its end."""
        rig, times = self.rig, {"from_s": row.began_s, "to_s": row.ended_s}
        arrivals = Arrivals.read(rig.arrivals_path)
        row.fullest, row.surely_fullest = arrivals.fullest(**times), arrivals.surely_fullest(**times)
        row.late_s = arrivals.late_s(**times)
        found: list[Answer] = []
        for host in rig.hosts:
            found += answers(rig.place(host, "answers.jsonl"), **times)
        row.by_outcome = outcomes(found)
        row.slowest_s = max(each.took_s for each in found)
        row.surely_slowest_s = max(each.late_s for each in found)

    def _told(self, host: str, row: Row) -> list[str]:
        """What the host said in the log, the journal, its metrics, its status page and its health check."""
        said = self.rig.said(host, from_s=row.began_s)
        log = self.rig.log(host, from_wall=row.from_wall)
        return [
            f"log: {_in_turn([_line(entry) for entry in log if _is_of_quota(entry)])}",
            f"journal: {_in_turn(_of_journal(self.rig.journal(host, from_wall=row.from_wall)))}",
            f"metrics: {_metrics(said)}",
            f"status: {_in_turn([_status(each['status']) for each in said])}",
            f"health: {_in_turn([_health(each['health']) for each in said])}",
        ]

    def check_told(self, fault: Fault, row: Row) -> None:
        """What happened is in each of them."""
        for host in fault.hit(self.rig):
            told = dict(each.split(": ", 1) for each in row.told[host])
            if fault.loses_books:
                for where, words in _OF_NEW_BOOKS.items():
                    assert words in told[where], (host, where, told[where])
            if fault.reason is not None:
                for where in ("log", "journal", "status", "health"):
                    assert fault.reason in told[where], (host, where, told[where])
                assert "failures +0" not in told["metrics"], (host, told["metrics"])
                assert "coordination_back" in told["log"], (host, told["log"])
                assert f"quota_mode {fault.until}" in told["log"], (host, told["log"])


def is_well(said: Said, *, sure: bool) -> bool:
    """Whether a host has its lease, and nothing is the matter; `sure`: nor do the books recover."""
    status = said["status"]
    is_recovering = sure and status["recovering"]
    return (
        status["mode"] == "leased"
        and status["trouble"] is None
        and not is_recovering
        and said["health"]["ok"]
    )


def check_bound(row: Row, quota_rpm: int) -> None:
    """No minute had more than the quota, and nobody hung or heard nothing."""
    told = (
        f"{row.name}: {row.fullest} of {quota_rpm} in the fullest minute, noted up to {row.late_s:.3f} s late"
    )
    assert row.surely_fullest <= quota_rpm, told
    silent = {outcome: count for outcome, count in row.by_outcome.items() if outcome.startswith("no answer")}
    assert not silent, (row.name, silent)
    most_s = DEADLINE_S + _BESIDE_S + row.stall_s
    assert row.surely_slowest_s <= most_s, f"{row.name}: an answer took {row.slowest_s:.2f} s of {most_s:.2f}"


def _in_turn(texts: Sequence[str]) -> str:
    """Without those that only repeat the one before."""
    kept = [text for at, text in enumerate(texts) if at == 0 or texts[at - 1] != text]
    return " → ".join(kept)


def _is_of_quota(entry: dict[str, Any]) -> bool:
    return str(entry["event"]).startswith(("coordination", "quota"))


def _line(entry: dict[str, Any]) -> str:
    facts = [str(entry[name]) for name in ("mode", "reason") if name in entry]
    return " ".join([str(entry["event"]), *facts])


def _of_journal(text: str) -> list[str]:
    return [line for line in text.splitlines() if "coordination" in line or "quota" in line]


def _status(status: dict[str, Any]) -> str:
    parts = [status["mode"], *(["recovering"] if status["recovering"] else []), status["trouble"] or ""]
    return ", ".join(part for part in parts if part)


def _health(health: dict[str, Any]) -> str:
    """Its detail where it has more to say than figures, which change every second."""
    reasons = [part for part in str(health["detail"]).split("; ") if not part[0].isdigit()]
    return f"{'ok' if health['ok'] else 'FAIL'}: {'; '.join(reasons)}" if reasons else "ok"


def _metrics(said: Sequence[Said]) -> str:
    first, last = said[0]["metrics"], said[-1]["metrics"]
    grown = {name: last[name] - first[name] for name in sorted(last) if name.endswith("_total")}
    parts = [f"{name.removesuffix('_total')} +{value:g}" for name, value in grown.items()]
    turns = [f"{name} " + _in_turn([f"{each['metrics'][name]:g}" for each in said]) for name in _TURNS]
    limits = [each["metrics"]["limit"] for each in said]
    return f"{', '.join(parts)}; {'; '.join(turns)}; limit {min(limits):g}–{max(limits):g}"
