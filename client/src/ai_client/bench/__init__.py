"""Measures a provider by way of this host's service, or directly: latency, throughput, cost, cache, pool."""
