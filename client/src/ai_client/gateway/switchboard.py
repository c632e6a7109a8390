"""Hands each of the client's events to those alone that want its kind: of eight listeners most want one or two."""

from __future__ import annotations

from typing import Any

from ai_client.events import Event, Listener


class Switchboard:
    """One listener of the event stream that stands for many."""

    def __init__(self) -> None:
        self._listeners: dict[type[Any], tuple[Listener, ...]] = {}

    def connect(self, listener: Listener, *kinds: type[Any]) -> None:
        """From now on `listener` gets every event of these kinds, after those who were connected before."""
        for kind in kinds:
            self._listeners[kind] = (*self._listeners.get(kind, ()), listener)

    def __call__(self, event: Event) -> None:
        """The listener."""
        for listener in self._listeners.get(type(event), ()):
            listener(event)
