"""W3C trace context: whose trace a request belongs to. Pure.

Our span's id follows from the request's id, so that whoever writes the header and whoever writes the span agree.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

HEADER: Final = "traceparent"
_PARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)


@dataclass(frozen=True, slots=True)
class SpanContext:
    """Of our span in its trace: ids in hex; `parent_id` is "" where the trace begins with us."""

    trace_id: str
    span_id: str
    parent_id: str
    is_sampled: bool

    @property
    def header(self) -> str:
        """For whom we call: our span is the parent there."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"


def span_context(request_id: str, *, traceparent: str, sample_share: float) -> SpanContext:
    """A caller's trace goes on as the caller samples it; a new one is sampled by its share."""
    digest = hashlib.sha256(request_id.encode()).hexdigest()
    span_id = digest[32:48]
    given = _PARENT.fullmatch(traceparent.strip().lower())
    if given is not None:
        return SpanContext(given[1], span_id, given[2], bool(int(given[3], 16) & 1))
    return SpanContext(digest[:32], span_id, "", int(digest[48:64], 16) < sample_share * 2**64)
