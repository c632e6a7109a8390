"""From what is wanted and what is there to what has to be done. Nothing here touches the host."""

from collections.abc import Iterable
from typing import NamedTuple

from .difference import Change, compare
from .host import UnitState
from .items import DAEMON_RELOAD, HAND_OVER, RELOAD, RESTART, SOCKETS, TRUST, Item, Release
from .observe import Observed
from .places import SERVICE


class Plan(NamedTuple):
    """Items to lay down, and what must follow.

    Attributes:
        items: in their order.
        changes: what a reader is shown; also of units and of leftovers.
        effects: what must follow, of this run and of one that did not end.
        stopped: units that have to be started.
    """

    items: tuple[Item, ...]
    changes: tuple[Change, ...]
    effects: frozenset[str]
    stopped: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether the host is as it should be."""
        return not (self.changes or self.effects)

    @property
    def needs_artefact(self) -> bool:
        """Whether a tree has to be unpacked."""
        return any(isinstance(item, Release) for item in self.items)

    def actions(self) -> list[str]:
        """In words, what is done beyond the files."""
        words = [effect for effect in (TRUST, DAEMON_RELOAD) if effect in self.effects]
        if SOCKETS in self.effects:
            return [*words, "restart sockets and service"]
        if RESTART in self.effects:
            return [*words, f"restart {SERVICE}"]
        if self.stopped:
            return [*words, f"start {', '.join(self.stopped)}"]
        if HAND_OVER in self.effects:
            return [*words, f"hand {SERVICE} over to the release"]
        return [*words, f"reload {SERVICE}"] if RELOAD in self.effects else words


def make_plan(items: Iterable[Item], observed: Observed, *, wants_running: bool) -> Plan:
    """Compares every item; `wants_running` says whether the units have to run."""
    steps: list[Item] = []
    changes = [Change(path, "left by a run that was interrupted\n", "") for path in observed.leftovers]
    effects: set[str] = set()
    for item in items:
        change = compare(item, observed.found[item.path], observed.ids)
        if change is not None:
            steps.append(item)
            changes.append(change)
            effects.update(getattr(item, "effects", ()))
    if any(isinstance(item, Release) for item in steps) and HAND_OVER not in effects:
        # The release that runs was laid down anew: nothing tells the process that its files are others.
        effects.add(RESTART)
    if observed.pending is not None:
        effects.update(observed.pending.effects)
        changes.append(Change("last run", "did not end\n", "ended\n"))
    stopped: tuple[str, ...] = ()
    if wants_running:
        stopped = tuple(name for name, state in observed.units.items() if not state.is_running)
        changes += [_unit_change(name, observed.units[name]) for name in stopped]
        if SERVICE not in stopped and any(name.endswith(".socket") for name in stopped):
            # systemd starts no socket of a service that runs.
            effects.add(SOCKETS)
        if any(state.needs_reload or state.is_masked for state in observed.units.values()):
            effects.add(DAEMON_RELOAD)
            if not changes:
                changes.append(
                    Change("systemd", "has older unit files loaded\n", "has these unit files loaded\n")
                )
    return Plan(tuple(steps), tuple(changes), frozenset(effects), stopped)


def _unit_change(name: str, state: UnitState) -> Change:
    word = "masked" if state.is_masked else state.active
    return Change(f"unit {name}", f"{word}\n", "active\n")
