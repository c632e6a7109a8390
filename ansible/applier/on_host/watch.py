"""Whether a change made the service worse, by its own counters before and after. Nothing here touches the host.

What the upstream answers never counts as the change's fault: an outage looks the same under every release. What counts
is what the service makes itself: its own errors, how much it sends where it is told to slow down, and the time that it
adds to a request.
"""

import math
import re
from typing import NamedTuple

from .request import Gate

# Errors that the service makes by itself; all others are the upstream's, the caller's, or a limit's.
OWN_ERRORS = frozenset({"internal_error", "invalid_configuration", "client_closed", "ledger_unavailable"})
# Not an outcome: nobody waited for the answer, or the question was this program's own.
_NO_OUTCOME = frozenset({"cancelled", "not_cached"})

_LINE = re.compile(r"(?m)^([a-z_]+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')

_FEWEST_ERRORS = 3
_FEWEST_REQUESTS = 20
_SENDS_MORE = 1.5
_ALSO_SENDS_MORE_RPM = 10
_SLOWER = 4
_OFTEN = 0.95
_ENDLESS_S = 3600.0
# Of a normal distribution: 19 of 20 times the true share lies within this many standard deviations.
_DEVIATIONS = 1.96


class Sample(NamedTuple):
    """Counters of one process of the service, from its start on.

    Attributes:
        process: its number; another one counts from zero.
        requests: how many ended.
        own_errors: how many of them ended in an error of the service's own making.
        attempts: how many times one was sent upstream, or could have been.
        throttled: how many of those the upstream answered with 429.
        overhead: for each bound in seconds, to how many requests the service added no more than that.
    """

    process: int = 0
    requests: int = 0
    own_errors: int = 0
    attempts: int = 0
    throttled: int = 0
    overhead: tuple[tuple[float, int], ...] = ()

    def since(self, before: "Sample") -> "Sample":
        """What came after another sample; a new process has counted nothing before its start."""
        if before.process != self.process or before.requests > self.requests:
            return self
        earlier = dict(before.overhead)
        return Sample(
            self.process,
            self.requests - before.requests,
            self.own_errors - before.own_errors,
            self.attempts - before.attempts,
            self.throttled - before.throttled,
            tuple((bound, count - earlier.get(bound, 0)) for bound, count in self.overhead),
        )

    @property
    def overhead_p95_s(self) -> float | None:
        """To 95 of 100 requests the service adds no more than this; None where too few were counted."""
        total = self.overhead[-1][1] if self.overhead else 0
        if total < _FEWEST_REQUESTS:
            return None
        return next(bound for bound, count in self.overhead if count >= _OFTEN * total)

    def told(self) -> dict[str, float | int | None]:
        """For results."""
        return {
            "requests": self.requests,
            "own_errors": self.own_errors,
            "throttled": self.throttled,
            "overhead_p95_s": self.overhead_p95_s,
        }


def read_metrics(text: str, *, process: int) -> Sample:
    """The sample in what a process shows to Prometheus: a hardened one may not tell when it was started."""
    requests, own, retries, throttled, faults = 0.0, 0.0, 0.0, 0.0, 0.0
    overhead: dict[float, int] = {}
    for name, labels_text, number in _LINE.findall(text):
        labels = dict(_LABEL.findall(labels_text))
        if name == "ai_client_gateway_faults_total":
            faults = float(number)
        elif name == "ai_client_requests_total" and labels["code"] not in _NO_OUTCOME:
            requests += float(number)
            own += float(number) if labels["code"] in OWN_ERRORS else 0
            throttled += float(number) if labels["code"] == "rate_limit_exceeded" else 0
        elif name == "ai_client_retries_total":
            retries += float(number)
            throttled += float(number) if labels["error"] == "RateLimitError" else 0
        elif name == "ai_client_overhead_seconds_bucket":
            bound = _ENDLESS_S if labels["le"] == "+Inf" else float(labels["le"])
            overhead[bound] = int(float(number))
    # A fault may come before the request is counted or after: never more requests end in one than end.
    ended = max(requests, faults + own)
    return Sample(
        process,
        int(ended),
        int(own + faults),
        int(ended + retries),
        int(throttled),
        tuple(sorted(overhead.items())),
    )


def surely_above(part: int, whole: int, share: float) -> bool:
    """Whether a share is above a bound beyond chance: the lower end of Wilson's interval (1927) is."""
    if part < _FEWEST_ERRORS or whole <= 0:
        return False
    seen, squared = min(1.0, part / whole), _DEVIATIONS**2
    middle = seen + squared / (2 * whole)
    spread = _DEVIATIONS * math.sqrt((seen * (1 - seen) + squared / (4 * whole)) / whole)
    return (middle - spread) / (1 + squared / whole) > share


def worse(before: Sample, after: Sample, *, bounds: Gate, sent_rpm: tuple[int, int] | None) -> str:
    """What became worse by the change, in words; empty where nothing did.

    Args:
        before: the counters before the change, from the process's start on.
        after: the counters since the change.
        bounds: how much worse is too much.
        sent_rpm: how many requests were sent in a minute, before and after; None where that is not known.
    """
    if surely_above(after.own_errors, after.requests, bounds.error_share + _share_of_own(before)):
        return (
            f"answers with errors of its own: {_part(after.own_errors, after.requests)} requests, "
            f"before the change {_part(before.own_errors, before.requests)}"
        )
    # Told to slow down without having sent more, it is the upstream that changed.
    sends_more = sent_rpm is not None and sent_rpm[1] > sent_rpm[0] * _SENDS_MORE + _ALSO_SENDS_MORE_RPM
    allowed = bounds.throttled_share + _ratio(before.throttled, before.attempts)
    if sends_more and surely_above(after.throttled, after.attempts, allowed):
        return (
            f"sends more than before and is refused with 429: {_part(after.throttled, after.attempts)} attempts, "
            f"before the change {_part(before.throttled, before.attempts)}"
        )
    return _slower(before.overhead_p95_s, after.overhead_p95_s, bounds.overhead_s)


def _slower(before_s: float | None, after_s: float | None, bound_s: float) -> str:
    if after_s is None or before_s is None or after_s <= bound_s or after_s < _SLOWER * before_s:
        return ""
    return (
        f"adds up to {after_s * 1000:g} ms to 95 of 100 requests by itself, "
        f"before the change {before_s * 1000:g} ms"
    )


def _share_of_own(sample: Sample) -> float:
    return _ratio(sample.own_errors, sample.requests)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole > 0 else 0.0


def _part(part: int, whole: int) -> str:
    return f"{part} of {whole} ({_ratio(part, whole):.0%})"
