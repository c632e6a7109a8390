"""The faults that are played: how each begins and is mended, and what a host must say of it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.ansible.coordination_faults.rig import Rig

SLOW_S = 2.0
LAG_S = 1.0
_AWAY = "can't be reached"
_SILENT = "did not answer in time"


@dataclass(frozen=True)
class Fault:
    """`begin` returns what is to be known of it. `hosts` are those that it hits: the last ones of them all, or all."""

    name: str
    begin: Callable[[Rig], str]
    mend: Callable[[Rig], None]
    #: What log, status page and health check name as the reason; None: hosts may notice nothing but a wait.
    reason: str | None = None
    #: How far it is let to go: until their limits come from there.
    until: str = "floor"
    #: Whether the engine that is there afterwards does not know what was lent.
    loses_books: bool = False
    hits_one: bool = False
    #: What has to be there long before.
    prepare: Callable[[Rig], None] = lambda _rig: None

    def hit(self, rig: Rig) -> Sequence[str]:
        """The hosts."""
        return rig.hosts[-1:] if self.hits_one else rig.hosts


def _kill(rig: Rig) -> str:
    rig.engines.engine.signal(signal.SIGKILL)
    return "SIGKILL; started again over its append-only file"


def _stop(rig: Rig) -> str:
    rig.engines.engine.signal(signal.SIGSTOP)
    return "SIGSTOP; SIGCONT"


def _cut_off_one(rig: Rig) -> str:
    rig.engines.cut_off(rig.hosts[-1])
    return f"no packet between {rig.hosts[-1]} and the engine, either way"


def _cut_off_all(rig: Rig) -> str:
    for host in rig.hosts:
        rig.engines.cut_off(host)
    return "no packet between any host and the engine, either way"


def _join_all(rig: Rig) -> None:
    for host in rig.hosts:
        rig.engines.join(host)


def _slow_down(rig: Rig) -> str:
    rig.engines.slow_down(SLOW_S)
    return f"each answer {SLOW_S:g} s late"


def _fill(rig: Rig) -> str:
    rig.engines.fill(most_bytes=1)
    return "maxmemory 1, noeviction"


def _change_password(rig: Rig) -> str:
    rig.engines.change_password()
    return "the engine has another; connections ended"


def _change_version(rig: Rig) -> str:
    rig.engines.replace(rig.engines.programs[-1])
    return (
        f"{rig.engines.version()} instead, with nothing in it; then a replica of the first program takes over"
    )


def _upgrade(rig: Rig) -> None:
    rig.engines.attach(rig.engines.programs[0])
    rig.engines.promote()


def _attach(rig: Rig) -> None:
    rig.engines.attach(rig.engines.programs[0])


def _fail_over(rig: Rig) -> str:
    return rig.engines.fail_over(lag_s=LAG_S)


def _nothing(_rig: Rig) -> None:
    pass


_FAULTS = (
    Fault("killed", _kill, lambda rig: rig.engines.restart(), _AWAY, until="static", loses_books=True),
    Fault("stopped", _stop, lambda rig: rig.engines.engine.signal(signal.SIGCONT), _SILENT),
    Fault(
        "cut-off-one",
        _cut_off_one,
        lambda rig: rig.engines.join(rig.hosts[-1]),
        _SILENT,
        until="static",
        hits_one=True,
    ),
    Fault("cut-off-all", _cut_off_all, _join_all, _SILENT, until="static"),
    Fault("slow", _slow_down, lambda rig: rig.engines.speed_up(), until="leased"),
    Fault(
        "full-memory",
        _fill,
        lambda rig: rig.engines.fill(most_bytes=0),
        "is out of memory; raise its maxmemory",
    ),
    Fault(
        "wrong-password",
        _change_password,
        lambda rig: rig.engines.give_back_password(),
        "refuses the user or password",
    ),
    Fault(
        "another-version",
        _change_version,
        _upgrade,
        until="leased",
        loses_books=True,
    ),
    Fault("failover", _fail_over, _nothing, until="leased", loses_books=True, prepare=_attach),
)
FAULTS: Mapping[str, Fault] = {each.name: each for each in _FAULTS}
