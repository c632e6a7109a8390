"""How many connections the service takes, by the descriptors that its process may have."""

from __future__ import annotations

import resource

from ai_client.gateway.http.shared import Bounds

#: For files, logs, and those who look at metrics.
_OWN = 256
_MOST_CONNECTIONS = 8192
_LEAST_CONNECTIONS = 16


def bounds_for(operators: frozenset[int]) -> Bounds:
    """Raises the process's soft limit to its hard one, and leaves the service what it needs itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit = _MOST_CONNECTIONS * 2 if hard == resource.RLIM_INFINITY else hard
    # Each request may take one connection here and one upstream.
    connections = max(_LEAST_CONNECTIONS, min(_MOST_CONNECTIONS, (limit - _OWN) // 2))
    return Bounds(connections=connections, per_caller=max(1, connections // 2), trusted_uids=operators)
