"""Watches a service for a while after a change, and says whether the change made it worse."""

import json
from typing import Any, NamedTuple

from .errors import ApplyError
from .host import Host
from .request import Request
from .watch import OWN_ERRORS, Sample, read_metrics, worse

_LOOK_EVERY_S = 1.0
_NO_ANSWER = 0
_INTERNAL_ERROR = 500
# The question is a right one to a service that is there: these would say that it is not.
_REFUSALS = frozenset({400, 404, 405, 422})


class Seen(NamedTuple):
    """How the service does at one moment.

    Attributes:
        sample: its counters; None where it shows none.
        sent_rpm: how many requests it sent in the last minute; None where it does not tell.
        fault: what is wrong with its answer to a question that needs no upstream; empty where nothing is.
    """

    sample: Sample | None
    sent_rpm: int | None
    fault: str


class Watched(NamedTuple):
    """What was seen: `fault` in words, empty where the change made nothing worse; `told` for results."""

    fault: str
    told: dict[str, Any] | None


def look(host: Host, request: Request, *, asks: bool = True) -> Seen:
    """Looks once; each question is a line in the service's audit log, so not every look `asks` one."""
    sample = None
    if request.gate.metrics:
        try:
            sample = read_metrics(host.metrics(request.gate.metrics), process=host.main_pid())
        except ApplyError:
            sample = None
    fault = fault_of(*host.question(request.socket)) if asks else ""
    return Seen(sample, host.sent_rpm(request.socket), fault)


def fault_of(status: int, body: bytes) -> str:
    """What an answer to the question tells of the service: any but an error of its own making is right."""
    if status == _NO_ANSWER:
        return f"a request that needs no upstream: {body.decode(errors='replace')}"
    code = _code(body)
    if status == _INTERNAL_ERROR or code in OWN_ERRORS or status in _REFUSALS:
        return f"answers {status}{f' ({code})' if code else ''} to a request that needs no upstream"
    return ""


def _code(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""


def watch(host: Host, request: Request, *, before: Seen | None, is_trusted: bool) -> Watched:
    """Looks again and again while the time set for it lasts, and stops at the first thing that became worse.

    Args:
        host: where the service runs.
        request: what was asked of the host.
        before: how the service did before the change; None where it did not run.
        is_trusted: whether that was a service as it should be, and not what a run left that did not end.
    """
    began_s = host.clock_s()
    seconds = request.gate.seconds if before is not None else 0.0
    lasted_s = 0.0
    while True:
        is_over = lasted_s >= seconds
        now = look(host, request, asks=is_over or lasted_s == 0)
        fault = _fault(request, before, now, is_trusted=is_trusted)
        if fault or is_over:
            return Watched(fault, _told(before, now, lasted_s=lasted_s))
        host.wait(min(_LOOK_EVERY_S, seconds - lasted_s))
        lasted_s = host.clock_s() - began_s


def _fault(request: Request, before: Seen | None, now: Seen, *, is_trusted: bool) -> str:
    if now.fault and not (before is not None and is_trusted and before.fault):
        return now.fault
    if before is None or before.sample is None or now.sample is None:
        return ""  # there is nothing to compare with
    rates = None if None in (before.sent_rpm, now.sent_rpm) else (before.sent_rpm or 0, now.sent_rpm or 0)
    baseline = before.sample if is_trusted else Sample()
    return worse(baseline, now.sample.since(before.sample), bounds=request.gate, sent_rpm=rates)


def _told(before: Seen | None, now: Seen, *, lasted_s: float) -> dict[str, Any] | None:
    if before is None or before.sample is None or now.sample is None:
        return None
    after = now.sample.since(before.sample).told()
    return {"seconds": round(lasted_s, 1), **after, "before": before.sample.told()}
