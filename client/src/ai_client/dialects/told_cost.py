"""The cost that an upstream tells beside its tokens. Pure, and never raises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

_NANO: Final = 1_000_000_000


def told_nusd(value: Mapping[str, Any]) -> int | None:
    """The cost that some tell beside the tokens: OpenRouter's `cost` (with what it passes on to one's own key),
    Perplexity's `cost.total_cost`, xAI's `cost_in_usd_ticks` of which 10^10 are a dollar."""
    ticks = _amount(value.get("cost_in_usd_ticks"))
    if ticks is not None:
        return math.ceil(ticks / 10)
    cost = value.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    dollars = _amount(cost)
    if dollars is None:
        return None
    details = value.get("cost_details")
    if value.get("is_byok") and isinstance(details, dict):
        dollars += _amount(details.get("upstream_inference_cost")) or 0
    # The last digits of a float are no money.
    return math.ceil(round(dollars * _NANO, 3))


def _amount(value: object) -> float | None:
    """A sum of money; None where it is none, or one that nobody is billed for one call."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 10**15:
        return None
    return float(value)
