"""Metrics for Prometheus, made from the client's events."""

from ai_client.metrics.families import CounterFamily, GaugeFamily, HistogramFamily
from ai_client.metrics.recorder import Recorder

__all__ = ["CounterFamily", "GaugeFamily", "HistogramFamily", "Recorder"]
