"""How much memory the bodies of requests may take together, and how much of it one tenant."""

from __future__ import annotations

from collections import Counter

MOST_BYTES = 128 * 1024 * 1024
#: What one tenant may have of it.
TENANT_SHARE = 0.5
#: Bodies up to this size always have room: there are no more of them than connections.
SMALL_BYTES = 16 * 1024


class BodyRoom:
    """Counts bytes from their arrival until their request has ended."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._most_of_tenant = int(most_bytes * TENANT_SHARE)
        self._by_tenant: Counter[str] = Counter()
        self.taken = 0
        #: How many requests were refused for want of it.
        self.refused = 0

    def take(self, tenant: str, count: int) -> bool:
        """Room for so many bytes more; False where there is none."""
        if self.taken + count > self._most or self._by_tenant[tenant] + count > self._most_of_tenant:
            self.refused += 1
            return False
        self.taken += count
        self._by_tenant[tenant] += count
        return True

    def give_back(self, tenant: str, count: int) -> None:
        """They are gone."""
        self.taken -= count
        self._by_tenant[tenant] -= count
        if not self._by_tenant[tenant]:
            del self._by_tenant[tenant]
