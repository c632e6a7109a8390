"""What went wrong with the ledger's file."""

from ai_client.contract.events import EventStream, StoreDegraded
from ai_client.platform.clock import Clock


class Trouble:
    """Counts each, keeps the last one's reason, and tells of the first one as an event."""

    def __init__(self, events: EventStream, clock: Clock) -> None:
        self.count = 0
        self.reason = "it was never opened"
        self._events = events
        self._clock = clock
        self._is_told = False

    def note(self, error: Exception) -> None:
        """Another one."""
        self.count += 1
        self.reason = f"{type(error).__name__}: {error}"
        if not self._is_told:
            self._is_told = True
            self._events.emit(StoreDegraded(at=self._clock.wall(), store="ledger", reason=self.reason))

    def broke_off(self) -> None:
        """A commit ended without an answer to those who waited for it; whatever broke it off is raised elsewhere."""
        self.count += 1
        self.reason = "a commit broke off"
