"""The states in which the host was seen healthy, the newest first, and the way back to them. Keys are in none."""

import json
from typing import Any, NamedTuple

from . import places, release
from .distribution import is_in_trust_store
from .execute import clear_pending, execute, run_effects
from .host import Host
from .items import (
    DAEMON_RELOAD,
    HAND_OVER,
    RELOAD,
    RESTART,
    SOCKETS,
    TRUST,
    Absent,
    File,
    Item,
    Link,
)
from .observe import Observed, look, observe_present, read_pending
from .plan import Plan, make_plan
from .request import Request
from .tree import Tree

_KEPT_STATES = 3


class GoodState(NamedTuple):
    """A healthy state: `run` made it; `files` has group, mode and text of all that is not secret, by path."""

    run: str
    release: str
    files: dict[str, dict[str, Any]]

    def is_same(self, other: "GoodState") -> bool:
        """Whether the service runs with the same in both."""
        return (self.release, self.files) == (other.release, other.files)


def read_states(tree: Tree) -> list[GoodState]:
    """Every recorded state, the newest first."""
    try:
        return [GoodState(**raw) for raw in json.loads(tree.read(places.GOOD_STATES) or b"[]")]
    except (ValueError, TypeError):
        return []


def present_state(tree: Tree, host: Host, request: Request) -> GoodState:
    """What is on the host now, as a state."""
    ours = observe_present(tree, host)
    paths = [places.LAUNCHER, request.config_path, request.bundle_path, *ours.trust]
    group_names = {0: "root", host.ids().gid: places.USER}
    files = {}
    for path in sorted([*paths, *map(places.unit_path, ours.units)]):
        found = tree.look(path)
        if found.kind == "file":
            text = found.content.decode(errors="surrogateescape")
            files[path] = {"group": group_names.get(found.gid, "root"), "mode": found.mode, "text": text}
    return GoodState(request.run, release.current(tree), files)


def record(tree: Tree, host: Host, request: Request) -> None:
    """Puts the present state on top of the good ones; a state that is there already keeps its place and run."""
    states = read_states(tree)
    state = present_state(tree, host, request)
    if not state.release or (states and states[0].is_same(state)):
        return
    host.reached("record the good state")
    kept = [state, *(other for other in states if not other.is_same(state))][:_KEPT_STATES]
    content = json.dumps([kept_state._asdict() for kept_state in kept], indent=1)
    tree.write(places.GOOD_STATES, content.encode(), gid=0, mode=0o600)


def state_before(tree: Tree, *, run: str | None) -> GoodState | None:
    """The newest good state whose release is still here; with `run`, the newest that this run did not make."""
    for state in read_states(tree):
        if (run is None or state.run != run) and release.is_intact(tree, state.release):
            return state
    return None


def restore(tree: Tree, host: Host, *, request: Request, state: GoodState) -> tuple[Plan, str]:
    """Puts a state back and restarts what has to be. Returns what it changed, and why that failed."""
    present = observe_present(tree, host)
    items = _items(tree, host, request, state)
    units = tuple(path.rpartition("/")[2] for path in state.files if path.startswith(f"{places.UNIT_DIR}/"))
    observed = Observed(
        ids=host.ids(),
        found={item.path: look(tree, item) for item in items},
        units=host.units(units),
        pending=read_pending(tree),
        leftovers=(),
    )
    plan = make_plan(items, observed, wants_running=True)
    if request.check:
        return plan, ""
    if plan.is_empty:
        return plan, ""
    process = host.main_process()
    execute(tree, host, run=request.run, plan=plan, artefact=b"")
    failure = run_effects(host, plan, observed=observed, present=present, socket=request.socket)
    if failure and RESTART not in plan.effects:
        # What failed may be unable to hand over or to reload.
        outcome = host.systemctl("restart", places.SERVICE)
        failure = "" if outcome.status == 0 else f"{failure}; and restart: {outcome.tail}"
    if process is not None:
        host.end_if_replaced(process)
    if not failure:
        clear_pending(tree)
    return plan, failure


def _items(tree: Tree, host: Host, request: Request, state: GoodState) -> list[Item]:
    items: list[Item] = [Absent(path, _effects(path)) for path in _surplus(tree, host, request, state)]
    for path, file in state.files.items():
        content = file["text"].encode(errors="surrogateescape")
        items.append(File(path, content, file["group"], file["mode"], _effects(path)))
        if path.startswith(f"{places.UNIT_DIR}/"):
            unit = path.rpartition("/")[2]
            items.append(Link(places.wants_path(unit), path, (DAEMON_RELOAD,)))
    return [*items, Link(places.CURRENT, f"releases/{state.release}", (HAND_OVER,))]


def _surplus(tree: Tree, host: Host, request: Request, state: GoodState) -> list[str]:
    """Paths on the host that the state does not have; a unit's link to its target goes with the unit."""
    ours = observe_present(tree, host)
    units = [unit for unit in ours.units if places.unit_path(unit) not in state.files]
    files = [path for path in (request.bundle_path, *ours.trust) if path not in state.files]
    return [*files, *map(places.wants_path, units), *map(places.unit_path, units)]


def _effects(path: str) -> tuple[str, ...]:
    if path.startswith(places.UNIT_DIR):
        return (DAEMON_RELOAD, SOCKETS if path.endswith(".socket") else RESTART)
    if is_in_trust_store(path):
        return (TRUST,)
    return (RESTART,) if path == places.LAUNCHER else (RELOAD,)


def prune_releases(tree: Tree, host: Host, *, keep: int) -> None:
    """Removes releases beyond the present one and `keep` others; the newest good ones stay longest."""
    present = release.current(tree)
    there = release.installed(tree)
    known = [state.release for state in read_states(tree)]
    ranked = sorted((name for name in there if name != present), key=lambda name: _rank(name, known))
    for digest in ranked[keep:]:
        host.reached(f"remove release {digest[:12]}")
        release.remove(tree, digest)


def _rank(name: str, known: list[str]) -> int:
    return known.index(name) if name in known else len(known)


def forget_run(tree: Tree, *, run: str) -> None:
    """Takes the states that a run made out of the good ones: it was undone."""
    kept = [state._asdict() for state in read_states(tree) if state.run != run]
    tree.write(places.GOOD_STATES, json.dumps(kept, indent=1).encode(), gid=0, mode=0o600)
