"""One apply run: look, plan, execute, start, verify, and go back where that fails."""

from typing import TYPE_CHECKING, Any, NamedTuple

from . import good_states, journal, places, release
from .desired import Present, Suited, desired_items
from .distribution import refuse_old_systemd
from .errors import ApplyError
from .execute import clear_pending, execute, note_pending, run_effects
from .health import FINE, NETWORK, Verdict, failing, judge
from .host import Host
from .items import HAND_OVER, RELOAD, RESTART, SOCKETS, File, Item, Release
from .marker import check_folders, check_owner
from .observe import Observed, observe, observe_present
from .plan import Plan, make_plan
from .record import refuse_what_is_not_ours, to_lay
from .request import Request
from .response import Response, state_of
from .sandbox import drop_ins
from .tree import Tree
from .trust import split_bundle
from .unchanged_record import record_unchanged

if TYPE_CHECKING:
    from .gate import Seen
    from .keys import Trial

_ASK_AGAIN_S = 0.5
_UNBUILT = "the installed release counts as the declared one: this machine has not built its own (up does)"
_OF_THE_SERVICE = frozenset({RESTART, HAND_OVER, RELOAD, SOCKETS})


class Run(NamedTuple):
    """What every step of a run needs."""

    request: Request
    tree: Tree
    host: Host
    artefact: bytes

    @property
    def only_verifies(self) -> bool:
        """Whether the run was asked to look at the service's health and nothing else."""
        return self.request.parts == {"verify"}


def apply(run: Run) -> Response:
    """Brings the host into the requested state, or says what that would change."""
    present = _present(run)
    if not run.only_verifies:
        _refuse_what_is_not_ours(run, present)
    items = _items(run, present)
    observed = observe(run.tree, run.host, request=run.request, present=present, items=items)
    check_folders(observed.found, present.marker)
    plan = make_plan(items, observed, wants_running=_wants_running(run))
    if not plan.is_empty:
        # A look at health may find what another run left to do.
        check_owner(present.marker, run.request.claim, takes_over=run.request.takes_over)
    stands = [] if plan.is_empty else _obstacles(run, plan, observed, present)
    if stands:
        return _respond(run, plan, _blocked(stands), health=None)._replace(changed=run.request.check)
    if plan.needs_artefact and not run.artefact and not run.request.check:
        return Response(needs=release.wanted(run.request, run.host).tag)
    notes = _notes(run, present)
    response = _carried_out(run, plan, observed, present)._replace(notes=notes)
    if not run.request.check and not response.failed and not response.message:
        release_path = _release_path(items)
        record_unchanged(
            run.tree, run.host, request=run.request, items=items, release=release_path, notes=notes
        )
    return response


def _is_unbuilt(run: Run) -> bool:
    request = run.request
    return request.check and "deploy" in request.parts and not request.trees


def _choice(run: Run) -> release.Choice:
    if _is_unbuilt(run):
        return release.assumed(run.request, run.tree, run.host)
    return release.wanted(run.request, run.host)


def _notes(run: Run, present: Present) -> "tuple[str, ...]":
    """What a reader should know, and what no run changes."""
    found = tuple(drop_in.note() for drop_in in present.drop_ins if not drop_in.is_drift)
    return (*found, _UNBUILT) if _is_unbuilt(run) else found


def _carried_out(run: Run, plan: Plan, observed: Observed, present: Present) -> Response:
    if run.request.check:
        return _respond(run, plan, FINE, health=None)
    return _verify_unchanged(run, plan) if plan.is_empty else _change(run, plan, observed, present=present)


def _present(run: Run) -> Present:
    found = drop_ins(run.tree, run.request.units)
    return observe_present(run.tree, run.host)._replace(drop_ins=tuple(found))


def _refuse_what_is_not_ours(run: Run, present: Present) -> None:
    check_owner(present.marker, run.request.claim, takes_over=run.request.takes_over)
    refuse_what_is_not_ours(run.tree, run.host, run.request, marker=present.marker)


def _items(run: Run, present: Present) -> list[Item]:
    if run.only_verifies:
        return []
    suited = None
    if "deploy" in run.request.parts:
        choice = _choice(run)
        suited = Suited(choice.tree.digest, choice.python, run.host.systemd())
        refuse_old_systemd(suited.systemd, run.request.units)
    folder = present.store.folder
    made = tuple(split_bundle(run.request.ca_bundle, folder=folder)) if "config" in run.request.parts else ()
    laid = to_lay(run.tree, run.host, run.request, certificates=made)
    return desired_items(run.request, suited=suited, present=present, to_lay=laid)


def _obstacles(run: Run, plan: Plan, observed: Observed, present: Present) -> "list[ApplyError]":
    from .programs import missing
    from .storage import obstacles

    deploys = "deploy" in run.request.parts
    size = _choice(run).tree.size if deploys else 0
    lacking = missing(run.host, plan, observed, trust_program=present.store.program[0])
    return [*lacking, *obstacles(run.tree, plan.items, observed.found, release_bytes=size)]


def _blocked(stands: "list[ApplyError]") -> Verdict:
    """Nothing is begun that can't be ended; the preview says so, too."""
    from .storage import refuse

    return Verdict(is_failed=True, rolls_back=False, reason=str(refuse(stands)))


def _release_path(items: list[Item]) -> str:
    return next((item.path for item in items if isinstance(item, Release)), "")


def _wants_running(run: Run) -> bool:
    """A service without its configuration or key can't start; `--tags deploy` on a new host lays down no more."""
    request = run.request
    has_config = "config" in request.parts or run.tree.look(request.config_path).kind == "file"
    has_key = (
        bool(request.key) if "secrets" in request.parts else run.tree.look(request.key_path).kind == "file"
    )
    return "deploy" in request.parts and has_config and has_key


def _verify_unchanged(run: Run, plan: Plan) -> Response:
    if "verify" not in run.request.parts:
        return _respond(run, plan, FINE, health=None)
    report = run.host.health(run.request.socket, timeout_s=run.request.health_deadline_s)
    verdict = judge(report, is_changed=False, failed_before=frozenset(), only_asked=run.only_verifies)
    if not verdict.reason and not run.only_verifies:
        good_states.record(run.tree, run.host, run.request)
    return _respond(run, plan, verdict, health=report)


def _change(run: Run, plan: Plan, observed: Observed, *, present: Present) -> Response:
    trials = _try_keys(run, plan)
    if any(trial.refused for trial in trials):
        return _refuse(run, plan, trials)
    failed_before = _failed_before(run, plan, observed)
    before = _look_before(run, plan, observed)
    execute(run.tree, run.host, run=run.request.run, plan=plan, artefact=run.artefact)
    failure = run_effects(run.host, plan, observed=observed, present=present, socket=run.request.socket)
    if not failure and plan.effects:
        note_pending(run.tree, run.host, run=run.request.run, effects=())
    is_changed = bool(plan.effects) or observed.pending is not None
    report, verdict = _verify(run, failure=failure, is_changed=is_changed, failed_before=failed_before)
    watched = None
    if report is not None and not verdict.is_failed and _is_to_watch(plan, observed):
        verdict, watched = _watch(run, verdict, before=before, is_trusted=observed.pending is None)
    response = _conclude(run, plan, verdict, report=report)
    return response._replace(watched=watched, tried_keys=tuple(trial._asdict() for trial in trials))


def _try_keys(run: Run, plan: Plan) -> "tuple[Trial, ...]":
    if not any(isinstance(item, File) and item.secret for item in plan.items):
        return ()
    from .keys import try_keys

    return try_keys(run.tree, run.host, request=run.request, plan=plan)


def _refuse(run: Run, plan: Plan, trials: "tuple[Trial, ...]") -> Response:
    """A key that the provider refuses is laid nowhere, and nothing else of its run is."""
    from .keys import refusal

    verdict = Verdict(is_failed=True, rolls_back=False, reason=refusal(trials))
    response = _respond(run, plan, verdict, health=None)._replace(changed=False, changes=(), actions=())
    journal.append(run.tree, journal.line(response, time=run.host.now(), run=run.request.run))
    return response._replace(tried_keys=tuple(trial._asdict() for trial in trials))


def _is_to_watch(plan: Plan, observed: Observed) -> bool:
    """Whether the service runs with something else than before; a key that was rotated is tried, not watched."""
    changes_service = any(
        _OF_THE_SERVICE.intersection(getattr(item, "effects", ())) and not getattr(item, "secret", False)
        for item in plan.items
    )
    return changes_service or observed.pending is not None


def _look_before(run: Run, plan: Plan, observed: Observed) -> "Seen | None":
    """How the service does before the change; None where it does not run, or is not to be watched."""
    service = observed.units.get(places.SERVICE)
    if "verify" not in run.request.parts or service is None or not service.is_running:
        return None
    if not _is_to_watch(plan, observed):
        return None
    # Imported here: most runs change nothing, and compile what they import.
    from .gate import look

    return look(run.host, run.request)


def _watch(
    run: Run, verdict: Verdict, *, before: "Seen | None", is_trusted: bool
) -> tuple[Verdict, dict[str, Any] | None]:
    from .gate import watch

    run.host.reached("watch the service")
    watched = watch(run.host, run.request, before=before, is_trusted=is_trusted)
    if watched.fault:
        verdict = Verdict(is_failed=True, rolls_back=True, reason=watched.fault)
    return verdict, watched.told


def _failed_before(run: Run, plan: Plan, observed: Observed) -> frozenset[str]:
    """The checks that fail already, before anything changes: an outage is not the change's fault."""
    service = observed.units.get(places.SERVICE)
    touches = observed.pending is not None or plan.effects & {RESTART, HAND_OVER, RELOAD, SOCKETS}
    if "verify" not in run.request.parts or not touches or service is None or not service.is_running:
        return frozenset()
    report = run.host.health(run.request.socket, timeout_s=run.request.health_deadline_s)
    faults = frozenset(failing(report))
    # A run that did not end has changed the service already: what fails may well be its fault.
    return faults if observed.pending is None else faults & NETWORK


def _verify(
    run: Run, *, failure: str, is_changed: bool, failed_before: frozenset[str]
) -> tuple[dict[str, Any] | None, Verdict]:
    if failure:
        return None, Verdict(is_failed=True, rolls_back=True, reason=failure)
    if "verify" not in run.request.parts:
        return None, FINE
    report = ask_health(run)
    verdict = judge(report, is_changed=is_changed, failed_before=failed_before, only_asked=run.only_verifies)
    if verdict.rolls_back and verdict.is_unreached:
        # It may have gone away meanwhile.
        known = failed_before | _unreached_by_the_state_before(run)
        verdict = judge(report, is_changed=is_changed, failed_before=known, only_asked=run.only_verifies)
    return report, verdict


def _unreached_by_the_state_before(run: Run) -> frozenset[str]:
    """What of the way to the provider fails now for the release and configuration that would be put back, too."""
    state = good_states.state_before(run.tree, run=None)
    if state is None:
        return frozenset()
    from .keys import report_with

    config = state.files.get(run.request.config_path, {}).get("text", "").encode(errors="surrogateescape")
    report = report_with(run.tree, run.host, installed=state.release, config=config)
    return NETWORK.intersection(failing(report))


def ask_health(run: Run) -> dict[str, Any]:
    """The health report; asked again until it is good or the deadline is over."""
    deadline_s = run.host.clock_s() + run.request.health_deadline_s
    while True:
        left_s = deadline_s - run.host.clock_s()
        report = run.host.health(run.request.socket, timeout_s=max(left_s, _ASK_AGAIN_S))
        if not failing(report) or run.host.clock_s() + _ASK_AGAIN_S >= deadline_s:
            return report
        run.host.wait(_ASK_AGAIN_S)


def _conclude(run: Run, plan: Plan, verdict: Verdict, *, report: dict[str, Any] | None) -> Response:
    run.host.reached("conclude")
    rolled_back = False
    reason = verdict.reason
    if verdict.rolls_back:
        rolled_back, reason = _go_back(run, verdict)
    elif not verdict.is_failed:
        if report is not None and not verdict.reason:
            good_states.record(run.tree, run.host, run.request)
        good_states.prune_releases(run.tree, run.host, keep=run.request.keep_releases)
        clear_pending(run.tree)
    verdict = verdict._replace(reason=reason)
    response = _respond(run, plan, verdict, health=report)._replace(rolled_back=rolled_back)
    journal.append(run.tree, journal.line(response, time=run.host.now(), run=run.request.run))
    return response


def _go_back(run: Run, verdict: Verdict) -> tuple[bool, str]:
    """Puts the last good state back. Keys stay: an old one may be revoked by now."""
    state = good_states.state_before(run.tree, run=None)
    if state is None and verdict.is_unreached:
        return (
            False,
            f"{verdict.reason}; there is no earlier state to compare with, so the service was left running",
        )
    if state is None:
        run.host.systemctl("stop", *run.request.units)
        return False, f"{verdict.reason}; there is no earlier good state, so the service was stopped"
    if state.is_same(good_states.present_state(run.tree, run.host, run.request)):
        return False, f"{verdict.reason}; this is the last good state, so there is nothing to go back to"
    run.host.reached("go back")
    _, failure = good_states.restore(run.tree, run.host, request=run.request, state=state)
    if failure:
        return False, f"{verdict.reason}; going back to release {state.release[:12]} failed too: {failure}"
    faults = failing(ask_health(run))
    after = f", which is unhealthy too: {faults}" if faults else ""
    return True, f"{verdict.reason}; went back to release {state.release[:12]}{after}"


def _respond(run: Run, plan: Plan, verdict: Verdict, *, health: dict[str, Any] | None) -> Response:
    return Response(
        changed=not plan.is_empty,
        failed=verdict.is_failed,
        message=verdict.reason,
        changes=plan.changes,
        actions=tuple(plan.actions()),
        health=health,
        state=state_of(run.tree, run.request),
    )


def refuse_without_root(effective_uid: int) -> None:
    """Raises ApplyError where the program does not run as root."""
    if effective_uid != 0:
        raise ApplyError("the applier", "does not run as root", "use become: true with a login that has sudo")
