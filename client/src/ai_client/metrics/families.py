"""Counters, gauges and histograms that cost a dictionary look-up on the event loop and become text when scraped.

`prometheus_client`'s own take a lock and several microseconds at each observation; here one thread observes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

OTHER = "other"


class Bounded:
    """Label values that a caller can choose, held to `limit` different ones: further ones become `other`."""

    __slots__ = ("_known", "_limit")

    def __init__(self, known: Iterable[str], *, limit: int) -> None:
        self._known = set(known)
        self._limit = max(limit, len(self._known))

    def __call__(self, value: str) -> str:
        known = self._known
        if value in known:
            return value
        if len(known) < self._limit:
            known.add(value)
            return value
        return OTHER


class CounterFamily:
    """Sums that only grow, by label values."""

    __slots__ = ("_help", "_labels", "_name", "_values")

    def __init__(self, name: str, help_text: str, labels: Sequence[str] = ()) -> None:
        self._name = name
        self._help = help_text
        self._labels = tuple(labels)
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, labels: tuple[str, ...] = (), amount: float = 1) -> None:
        """Add `amount`, not negative."""
        values = self._values
        values[labels] = values.get(labels, 0) + amount

    def value(self, labels: tuple[str, ...] = ()) -> float:
        """The sum now."""
        return self._values.get(labels, 0)

    def total(self) -> float:
        """Over all label values."""
        return sum(self._values.values())

    def collect(self) -> Metric:
        """What Prometheus sees."""
        family = CounterMetricFamily(self._name, self._help, labels=self._labels)
        for labels, value in list(self._values.items()):
            family.add_metric(labels, value)
        return family


class GaugeFamily:
    """Values that go up and down, by label values."""

    __slots__ = ("_help", "_labels", "_name", "_values")

    def __init__(self, name: str, help_text: str, labels: Sequence[str] = ()) -> None:
        self._name = name
        self._help = help_text
        self._labels = tuple(labels)
        self._values: dict[tuple[str, ...], float] = {}

    def put(self, value: float, labels: tuple[str, ...] = ()) -> None:
        """Set it."""
        self._values[labels] = value

    def collect(self) -> Metric:
        """What Prometheus sees."""
        family = GaugeMetricFamily(self._name, self._help, labels=self._labels)
        for labels, value in list(self._values.items()):
            family.add_metric(labels, value)
        return family


class Cell:
    """One distribution: what a family holds for one set of label values."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value into its bucket."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class HistogramFamily:
    """Distributions, by label values. `bounds` are the buckets' upper bounds without +Inf."""

    __slots__ = ("_bounds", "_cells", "_help", "_labels", "_name")

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str] = (), *, bounds: Sequence[float]
    ) -> None:
        self._name = name
        self._help = help_text
        self._labels = tuple(labels)
        self._bounds = tuple(bounds)
        self._cells: dict[tuple[str, ...], Cell] = {}

    def cell(self, labels: tuple[str, ...]) -> Cell:
        """The distribution of some label values, for whoever observes them often."""
        cell = self._cells.get(labels)
        if cell is None:
            cell = self._cells[labels] = Cell(self._bounds)
        return cell

    def observe(self, labels: tuple[str, ...], value: float) -> None:
        """Count a value into its bucket."""
        self.cell(labels).observe(value)

    def quantile(self, share: float) -> float | None:
        """An upper bound of the value below which `share` of all lie, over all label values; None without any."""
        sums = [sum(column) for column in zip(*(cell.counts for cell in self._cells.values()), strict=True)]
        wanted, seen = share * sum(sums), 0
        for bound, count in zip((*self._bounds, float("inf")), sums, strict=False):
            seen += count
            if count and seen >= wanted:
                return bound
        return None

    def collect(self) -> Metric:
        """What Prometheus sees."""
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        for labels, cell in list(self._cells.items()):
            buckets, seen = [], 0
            for bound, count in zip((*self._bounds, float("inf")), list(cell.counts), strict=True):
                seen += count
                buckets.append(("+Inf" if bound == float("inf") else repr(float(bound)), float(seen)))
            family.add_metric(labels, buckets, cell.total)
        return family
