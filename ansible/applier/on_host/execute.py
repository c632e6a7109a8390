"""Executes a plan: puts its items in place and runs what must follow."""

import json
from collections.abc import Iterable

from . import places, release
from .desired import Present
from .errors import ApplyError
from .host import RESTART_NEEDED, Host, Outcome
from .items import (
    DAEMON_RELOAD,
    HAND_OVER,
    RELOAD,
    RESTART,
    SOCKETS,
    TRUST,
    Absent,
    Directory,
    File,
    Identity,
    Ids,
    Item,
    Link,
    Release,
    SetAside,
)
from .observe import Observed
from .plan import Plan
from .tree import Tree


def note_pending(tree: Tree, host: Host, *, run: str, effects: Iterable[str]) -> None:
    """Writes down what this run still owes, so that the next one can end it; without effects, just the verdict."""
    host.reached("write down what is owed")
    content = {"run": run, "effects": sorted(effects)}
    tree.write(places.PENDING, (json.dumps(content) + "\n").encode(), gid=0, mode=0o600)


def clear_pending(tree: Tree) -> None:
    """The run has ended."""
    tree.remove(places.PENDING)


def execute(tree: Tree, host: Host, *, run: str, plan: Plan, artefact: bytes) -> None:
    """Puts every item of the plan in place; before anything that needs an effect, the effects are written down."""
    ids = host.ids()
    _claim_first(tree, host, plan.items)
    note_pending(tree, host, run=run, effects=plan.effects)
    for change in plan.changes:
        if places.PARTIAL_PREFIX in change.path:
            tree.remove_all(change.path)
    for item in plan.items:
        if item.path == places.MARKER:
            continue
        host.reached(f"lay {item.path}")
        if isinstance(item, Identity):
            host.add_identity(ids)
            ids = host.ids()
        else:
            _lay_item(tree, host, item, ids=ids, artefact=artefact)
    host.restore_labels([item.path for item in plan.items if item.path.startswith("/")])


def _claim_first(tree: Tree, host: Host, items: Iterable[Item]) -> None:
    """Writes the claim before anything else is made, so that what a killed run made is on record."""
    for item in items:
        if isinstance(item, File) and item.path == places.MARKER:
            host.reached(f"lay {item.path}")
            if tree.look(places.HOME).kind != "directory":
                tree.directory(places.HOME, uid=0, gid=0, mode=0o750)
            tree.write(item.path, item.content, gid=0, mode=item.mode)


def _lay_item(tree: Tree, host: Host, item: Item, *, ids: Ids, artefact: bytes) -> None:
    if isinstance(item, Directory):
        uid, gid = _known(ids.owner(item.owner)), _known(ids.group(item.group))
        tree.directory(item.path, uid=uid, gid=gid, mode=item.mode)
    elif isinstance(item, File):
        tree.write(item.path, item.content, gid=_known(ids.group(item.group)), mode=item.mode)
    elif isinstance(item, Link):
        tree.link(item.path, item.target)
    elif isinstance(item, Absent):
        tree.remove(item.path)
    elif isinstance(item, SetAside):
        tree.rename(item.path, item.path + places.ASIDE_SUFFIX)
    elif isinstance(item, Release):
        release.install(tree, host, digest=item.digest, artefact=artefact)


def _known(number: int | None) -> int:
    if number is None:
        raise ApplyError(f"user {places.USER}", "vanished during the run", "run again")
    return number


def run_effects(host: Host, plan: Plan, *, observed: Observed, present: Present, socket: str) -> str:
    """Makes systemd and the service take up what changed. Returns why that failed; empty where it did not."""
    if TRUST in plan.effects:
        host.reached("refresh the trust store")
        outcome = host.refresh_trust(present.store.program)
        if outcome.status != 0:
            remedy = "install the package ca-certificates, or leave ai_custom_ca empty"
            raise ApplyError(present.store.program[0], outcome.tail or f"ended with {outcome.status}", remedy)
    masked = [name for name, state in observed.units.items() if state.is_masked]
    if masked:
        host.systemctl("unmask", "--runtime", *masked)
    if DAEMON_RELOAD in plan.effects:
        host.reached("reload systemd")
        failure = _failure(host, host.systemctl("daemon-reload"), "systemctl daemon-reload")
        if failure:
            return failure
    gone = [unit for unit in present.units if unit not in observed.units]
    return _run_service(host, plan, observed=observed, gone=gone, socket=socket)


def _run_service(host: Host, plan: Plan, *, observed: Observed, gone: list[str], socket: str) -> str:
    service = observed.units.get(places.SERVICE)
    if service is None or not (plan.stopped or service.is_running):
        return ""
    if SOCKETS in plan.effects:
        host.reached("restart the sockets")
        # Not `restart`: systemd refuses to start a socket whose service runs. Sockets go first, or they start it again.
        up = [unit for unit in observed.units if unit not in plan.stopped]
        failure = _systemctl(host, "stop", *gone, *up) if gone or up else ""
        return failure or _systemctl(host, "start", *observed.units)
    if plan.stopped:
        host.reached("start the service")
        failure = _systemctl(host, "start", *plan.stopped)
        if failure or places.SERVICE in plan.stopped:
            return failure
    if RESTART in plan.effects:
        host.reached("restart the service")
        return _systemctl(host, "restart", places.SERVICE)
    if plan.effects & {RELOAD, HAND_OVER}:
        return _reload(host, socket, to_release=HAND_OVER in plan.effects)
    return ""


def _reload(host: Host, socket: str, *, to_release: bool) -> str:
    host.reached("reload the service")
    outcome = host.reload_client(socket, to_release=to_release)
    if outcome.status == RESTART_NEEDED:
        return _systemctl(host, "restart", places.SERVICE)
    return _failure(host, outcome, "ai-client reload")


def _systemctl(host: Host, verb: str, *units: str) -> str:
    return _failure(host, host.systemctl(verb, *units), f"systemctl {verb}")


def _failure(host: Host, outcome: Outcome, what: str) -> str:
    if outcome.status == 0:
        return ""
    said = outcome.tail or f"ended with {outcome.status}"
    return f"{what} failed: {said}; the service's log: {host.unit_log(places.SERVICE)}"
