"""Faults on demand: what to do to which of the next requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

HEADER = "x-simulator-fault"
BODY_FIELD = "x_simulator_fault"
KINDS = ("status", "hang", "reset", "slow", "broken-json", "cut", "stall", "not-http", "play")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    `status`: answer with that status. `hang`: never answer. `reset`: TCP reset before an answer. `slow`: the body comes
    a byte at a time, `delay_s` between. `broken-json`: 200 with a body that is no JSON. `cut`: the body ends half way.
    `stall`: the body stops half way and the connection stays. `not-http`: bytes that are no HTTP. `play`: the answer
    `name` that the provider gave which the simulator is like (`played`).
    """

    kind: str
    status: int = 0
    retry_after: str | None = None
    retry_after_ms: int | None = None
    delay_s: float = 0.05
    name: str = ""


class FaultTextError(ValueError):
    """A fault is written in a way that can't be read."""


def parse(text: str) -> Fault:
    """`503`, `429; retry-after=2`, `429; retry-after-ms=300`, `hang`, `slow; delay=0.1`, `play; name=NAME`."""
    name, *options = (part.strip() for part in text.split(";"))
    values = dict(option.partition("=")[::2] for option in options)
    unknown = set(values) - {"retry-after", "retry-after-ms", "delay", "name"}
    if unknown:
        raise FaultTextError(
            f"fault option {sorted(unknown)[0]!r} is not known; use retry-after, retry-after-ms, delay or name"
        )
    try:
        status = int(name) if name.isdigit() else 0
        delay_s = float(values.get("delay", "0.05"))
        retry_after_ms = int(values["retry-after-ms"]) if "retry-after-ms" in values else None
    except ValueError as exc:
        raise FaultTextError(f"fault {text!r} has an option that is no number") from exc
    kind = "status" if status else name
    if kind not in KINDS or (status and not 400 <= status <= 599):
        raise FaultTextError(
            f"fault {name!r} is not known; use a status from 400 to 599, or {', '.join(KINDS[1:])}"
        )
    return Fault(kind, status, values.get("retry-after"), retry_after_ms, delay_s, values.get("name", ""))


@dataclass(slots=True)
class _Planned:
    fault: Fault
    left: int
    path: str | None
    model: str | None


class FaultPlan:
    """Faults waiting for requests that they fit, oldest first."""

    def __init__(self) -> None:
        self._planned: list[_Planned] = []

    def add(self, fault: Fault, *, count: int = 1, path: str | None = None, model: str | None = None) -> None:
        """Apply `fault` to the next `count` requests, of that path or model where given."""
        self._planned.append(_Planned(fault, count, path, model))

    def clear(self) -> None:
        """Forget all."""
        self._planned.clear()

    def take(self, *, path: str, model: str) -> Fault | None:
        """The fault for a request, if any; it is used up."""
        for planned in self._planned:
            if planned.path in (None, path) and planned.model in (None, model):
                planned.left -= 1
                if planned.left <= 0:
                    self._planned.remove(planned)
                return planned.fault
        return None


def asked_for(headers: Mapping[str, str], body: Mapping[str, object]) -> Fault | None:
    """The fault that a request asks for itself, by header or body field."""
    text = headers.get(HEADER) or body.get(BODY_FIELD)
    return parse(text) if isinstance(text, str) else None
