"""Numbers as servers and callers write them. Pure."""

from __future__ import annotations


def number_of(value: object) -> int | float | None:
    """A number that is written as one or as text; None where it is neither. It may be infinite or no number at all."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
