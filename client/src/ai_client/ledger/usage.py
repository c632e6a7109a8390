"""What was spent, from the ledger's file: by model, tenant, day, month or a cost tag. For `ai-client usage`."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final

from ai_client.ledger.prices import nusd_to_dollars
from ai_client.platform.sqlite_file import CheckedConnection

#: What rows can be grouped by, beside `tag:NAME`.
DIMENSIONS: Final = ("day", "month", "tenant", "model")
TAG_PREFIX: Final = "tag:"

_ROWS: Final = """
SELECT day, tenant, model, tags, sum(requests), sum(unknown_requests), sum(input_tokens), sum(output_tokens),
    sum(cached_input_tokens), sum(cost_nusd), sum(unknown_nusd)
FROM (
    SELECT day, tenant, model, tagset, count(*) AS requests, sum(fate = 3) AS unknown_requests,
        sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
        sum(cached_input_tokens) AS cached_input_tokens, sum(cost_nusd) AS cost_nusd,
        sum(CASE fate WHEN 3 THEN cost_nusd ELSE 0 END) AS unknown_nusd
    FROM entry WHERE fate IN (1, 3) AND day BETWEEN :first AND :last GROUP BY day, tenant, model, tagset
    UNION ALL
    SELECT day, tenant, model, tagset, requests, unknown_requests, input_tokens, output_tokens,
        cached_input_tokens, cost_nusd, unknown_nusd
    FROM usage_day WHERE day BETWEEN :first AND :last
) JOIN tagset ON tagset.id = tagset
GROUP BY day, tenant, model, tags ORDER BY day, tenant, model, tags
"""


@dataclass(slots=True)
class UsageRow:
    """One group. `requests` are billed calls; of these `unknown_requests` ended without the upstream's usage.

    `cost_nusd` includes `unknown_nusd`, which is the most that those may have cost.
    """

    group: tuple[str, ...]
    requests: int = 0
    unknown_requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cost_nusd: int = 0
    unknown_nusd: int = 0

    @property
    def cost_usd(self) -> Decimal:
        """Exact US dollars."""
        return nusd_to_dollars(self.cost_nusd)

    @property
    def unknown_usd(self) -> Decimal:
        """Exact US dollars."""
        return nusd_to_dollars(self.unknown_nusd)

    def add(self, counts: Sequence[int]) -> None:
        """Adds the numbers of a finer group, in the order of the fields."""
        self.requests += counts[0]
        self.unknown_requests += counts[1]
        self.input_tokens += counts[2]
        self.output_tokens += counts[3]
        self.cached_input_tokens += counts[4]
        self.cost_nusd += counts[5]
        self.unknown_nusd += counts[6]


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Groups in order, and their sum."""

    by: tuple[str, ...]
    rows: tuple[UsageRow, ...]
    total: UsageRow = field(default_factory=lambda: UsageRow(()))


def read_usage(path: Path, *, first_day: str, last_day: str, by: Sequence[str]) -> UsageReport:
    """Usage of the days from `first_day` to `last_day` (`2026-11-24`, both included).

    `by` names dimensions (`DIMENSIONS`, `tag:NAME`); an entry without the tag counts under "". The file is only
    read. Raises ValueError for another dimension, `sqlite3.Error` where there is no ledger.
    """
    for each in by:
        if each not in DIMENSIONS and not each.startswith(TAG_PREFIX):
            raise ValueError(
                f"can't group by {each!r}; choose from {', '.join(DIMENSIONS)}, {TAG_PREFIX}NAME"
            )
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0, factory=CheckedConnection
    )
    try:
        rows = db.execute(_ROWS, {"first": first_day, "last": last_day}).fetchall()
    finally:
        db.close()
    return _summed_up(rows, tuple(by))


def _summed_up(rows: Iterable[tuple[str, str, str, str, int]], by: tuple[str, ...]) -> UsageReport:
    groups: dict[tuple[str, ...], UsageRow] = {}
    total = UsageRow(())
    for day, tenant, model, tags, *counts in rows:
        known = {"day": day, "month": day[:7], "tenant": tenant, "model": model}
        labels = json.loads(tags) if any(each.startswith(TAG_PREFIX) for each in by) else {}
        group = tuple(
            known[each] if each in known else str(labels.get(each.removeprefix(TAG_PREFIX), ""))
            for each in by
        )
        groups.setdefault(group, UsageRow(group)).add(counts)
        total.add(counts)
    return UsageReport(by, tuple(groups[group] for group in sorted(groups)), total)
