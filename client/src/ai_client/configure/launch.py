"""How this process was started, and whether a start now would run another release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Launch:
    """A command line that starts the service again. `program` is its file, and `release` what that was then."""

    arguments: tuple[str, ...]
    program: Path
    release: Path

    @classmethod
    def of(cls, arguments: Sequence[str], program: str) -> Launch:
        """From `sys.orig_argv` and `sys.argv[0]`."""
        path = Path(program)
        return cls(tuple(arguments), path, path.resolve())

    def is_replaced(self) -> bool:
        """Whether a link on the way to the program leads elsewhere now: another release was put in place."""
        return self.program.resolve() != self.release


def child_environment(environment: Mapping[str, str], *, handover: str) -> dict[str, str]:
    """That of a successor: the sockets come by `handover`, and the watchdog is for whoever is the main process."""
    dropped = {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"}
    kept = {name: value for name, value in environment.items() if name not in dropped}
    return kept | {HANDOVER_VARIABLE: handover}


HANDOVER_VARIABLE = "AI_CLIENT_HANDOVER"
