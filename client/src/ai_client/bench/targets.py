"""Targets that a run is held to: `p95_ms<=800`, `throughput_rps>=50`."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from ai_client.bench.measure import Summary

_FORM = re.compile(r"\s*([a-z0-9_]+)\s*(<=|>=|<|>|=)\s*([0-9]+(?:\.[0-9]*)?)\s*")
_NUMBERS = tuple(item.name for item in fields(Summary) if item.name not in ("provider", "errors"))


class TargetError(ValueError):
    """A target can't be read."""


@dataclass(frozen=True, slots=True)
class BenchTarget:
    """One of them. `=` means at most for times, costs and errors, at least for the others."""

    name: str
    is_at_most: bool
    bound: float

    def is_met(self, summary: Summary) -> bool:
        """Whether a run keeps it. What was not measured keeps no target."""
        value = getattr(summary, self.name)
        if value is None:
            return False
        return bool(value <= self.bound if self.is_at_most else value >= self.bound)

    def describe(self, summary: Summary) -> str:
        """`p95_ms 1203.1 (at most 800)`."""
        value = getattr(summary, self.name)
        shown = "not measured" if value is None else f"{value:.6g}"
        return f"{self.name} {shown} ({'at most' if self.is_at_most else 'at least'} {self.bound:g})"


def parse(text: str) -> BenchTarget:
    """Raises TargetError."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise TargetError("write NAME<=NUMBER or NAME>=NUMBER, such as p95_ms<=800")
    name, mark, number = match.groups()
    if name not in _NUMBERS:
        raise TargetError(f"{name!r} is not measured; known are {', '.join(_NUMBERS)}")
    is_better_low = name.endswith(("_ms", "_usd", "error_rate", "seconds", "pool_peak"))
    return BenchTarget(name, is_better_low if mark == "=" else mark.startswith("<"), float(number))
