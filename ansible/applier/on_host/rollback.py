"""Undoes one run on a host that it left healthy: a wave goes back together."""

from typing import Any

from . import good_states, journal
from .apply import Run, ask_health
from .errors import ApplyError
from .health import NETWORK, failing
from .marker import check_owner, read_marker
from .plan import Plan
from .response import Response, state_of


def roll_back(run: Run) -> Response:
    """Puts the newest good state back that the run named in the request did not make. The key stays."""
    check_owner(read_marker(run.tree), run.request.claim)
    state = good_states.state_before(run.tree, run=run.request.run)
    if state is None:
        raise ApplyError(
            "this host", f"has no good state from before run {run.request.run}", "deploy a release"
        )
    plan, failure = good_states.restore(run.tree, run.host, request=run.request, state=state)
    if plan.is_empty or run.request.check:
        return _response(run, plan=plan, message="", health=None)
    good_states.forget_run(run.tree, run=run.request.run)
    health = ask_health(run)
    faults = {name: detail for name, detail in failing(health).items() if name not in NETWORK}
    message = failure or "; ".join(f"{name}: {detail}" for name, detail in faults.items())
    response = _response(run, plan=plan, message=message, health=health)
    journal.append(run.tree, journal.line(response, time=run.host.now(), run=run.request.run))
    return response


def _response(run: Run, *, plan: Plan, message: str, health: dict[str, Any] | None) -> Response:
    return Response(
        changed=not plan.is_empty,
        failed=bool(message),
        message=message,
        changes=plan.changes,
        actions=tuple(plan.actions()),
        health=health,
        rolled_back=not plan.is_empty and not run.request.check,
        state=state_of(run.tree, run.request),
    )
