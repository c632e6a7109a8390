"""Who may clean a host up: only a run that was told so, never an engine verb alone.

The engine deletes a claim where its host left the stack, but also on `--replace`, on a taint, after a rename without
alias, and on `destroy`, which runs no program. It tells the command nothing of why. So the program of an `up` leaves a
note of which claims leave and which stay, kept under its engine's process; the command of a claim finds the note of the
engine that it runs under. Without one, what the state recorded counts: the request itself says whether it may.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from infra import engine_process, run_slots


class Verdict(Enum):
    """What a run says of a claim that the engine deletes."""

    LEAVES = "leaves"
    STAYS = "stays"
    UNSAID = "unsaid"


@dataclass(frozen=True, slots=True, order=True)
class Machine:
    """Which machine a claim is of.

    Attributes:
        claim: the claim.
        address: where the host was when it was claimed.
        instance: its id at its cloud, or "".
    """

    claim: str
    address: str
    instance: str = ""

    @classmethod
    def of_request(cls, inventory: Mapping[str, Any], instance: Mapping[str, str]) -> Machine:
        """The machine that a request to clean up is for."""
        ((_, variables),) = inventory["all"]["hosts"].items()
        return cls(str(variables["ai_claim"]), str(variables["ansible_host"]), instance.get("id", ""))


def note(*, leaving: Iterable[Machine], staying: Iterable[Machine]) -> None:
    """Leaves the note of this run; one of an earlier program of the same engine is replaced.

    Without an engine above this process, as in a program that Pulumi's automation API runs inline, there is none.
    """
    engine, folder = engine_process.identity(), run_slots.state_folder()
    if engine is None or folder is None:
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _sweep(folder)
    content = {"leaving": _plain(leaving), "staying": _plain(staying)}
    path = folder / f"{engine}.json"
    draft = folder / f".{engine}.{os.getpid()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file)
    draft.replace(path)


def verdict(machine: Machine) -> Verdict:
    """What the run that this process is part of says of a machine."""
    engine, folder = engine_process.identity(), run_slots.state_folder()
    if engine is None or folder is None:
        return Verdict.UNSAID
    try:
        path = folder / f"{engine}.json"
        with path.open(encoding="utf-8") as file:
            found = os.fstat(file.fileno())
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                return Verdict.UNSAID
            content = json.load(file)
        for said in (Verdict.STAYS, Verdict.LEAVES):
            if machine in {Machine(*entry) for entry in content[_MEMBERS[said]]}:
                return said
    except (OSError, ValueError, KeyError, TypeError):
        return Verdict.UNSAID
    return Verdict.UNSAID


_MEMBERS = {Verdict.LEAVES: "leaving", Verdict.STAYS: "staying"}


def _plain(machines: Iterable[Machine]) -> list[list[str]]:
    return [[machine.claim, machine.address, machine.instance] for machine in sorted(machines)]


def _sweep(folder: Path) -> None:
    """Removes notes of engines that are gone."""
    for path in folder.glob("*.json"):
        pid = path.stem.partition("-")[0]
        if not pid.isdecimal() or path.stem != engine_process.identity_of(int(pid)):
            with contextlib.suppress(OSError):
                path.unlink()
