"""How each upstream stands: what its traffic says, which of its models are left alone, and which key signs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from ai_client.contract.events import Failed, FellBack, Settled
from ai_client.gateway.watch.evidence import FAULTS, Evidence
from ai_client.platform.clock import Clock
from ai_client.settings import KeyPair, Settings

#: What the default one is called where it stands among others.
DEFAULT: Final = "default"
_MOST_PARKED: Final = 20


class UpstreamWatch:
    """Listeners of the client's events."""

    def __init__(self, settings: Settings, *, clock: Clock) -> None:
        self._clock = clock
        self._by_name: dict[str, Evidence] = {}
        #: What takes each kind of event.
        self.listeners: dict[type[Any], Callable[[Any], None]] = {
            Settled: self._settled,
            Failed: self._failed,
            FellBack: self._fell_back,
        }
        self.reconfigure(settings)

    @property
    def default(self) -> Evidence:
        """Of the default upstream."""
        return self._by_name[""]

    def reconfigure(self, settings: Settings) -> None:
        """Those that are declared now; what was seen of one that stays, stays."""
        known = self._by_name
        names = ("", *(each.name for each in settings.upstreams))
        self._by_name = {name: known.get(name) or Evidence(clock=self._clock.monotonic) for name in names}

    def _settled(self, event: Settled) -> None:
        self._by_name[self._upstream_of(event.model)].settled(event)

    def _failed(self, event: Failed) -> None:
        self._by_name[self._upstream_of(event.model)].failed(event)

    def _fell_back(self, event: FellBack) -> None:
        if event.error in FAULTS:
            self._by_name[self._upstream_of(event.model)].note_fault(event.error)

    def _upstream_of(self, model: str) -> str:
        name, mark, _ = model.partition("/")
        return name if (mark or name == model) and name in self._by_name else ""

    def report(
        self, settings: Settings, keys: KeyPair, *, parked: Sequence[Sequence[Any]], models: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One object an upstream, the default one first.

        `parked` is as `AIAPIClient.parked` gives it, `models` as `get_stats` does.
        """
        found = [(DEFAULT, "", settings.api.base_url, settings.api.dialect, keys)]
        found += [
            (each.name, each.name, each.base_url, each.dialect, keys.others[each.name])
            for each in settings.upstreams
            if each.name in keys.others
        ]
        return [
            {
                "name": shown,
                "host": urlsplit(base_url).netloc.rpartition("@")[2],
                "dialect": dialect,
                "key": pair.current.fingerprint,
                "next_key": None if pair.following is None else pair.following.fingerprint,
                **self._state(name),
                "parked": self._parked(name, parked),
                "breakers": sorted(
                    model
                    for model, each in models.items()
                    if self._upstream_of(model) == name and each["breaker"] != "closed"
                )[:_MOST_PARKED],
            }
            for shown, name, base_url, dialect, pair in found
        ]

    def _state(self, name: str) -> dict[str, Any]:
        evidence = self._by_name.get(name)
        if evidence is None or (evidence.fault is None and evidence.answered_s_ago() is None):
            return {"ok": None, "answered_s_ago": None, "fault": None}
        seconds = evidence.answered_s_ago()
        return {
            "ok": evidence.fault is None,
            "answered_s_ago": None if seconds is None else round(seconds, 1),
            "fault": evidence.fault,
        }

    def _parked(self, name: str, parked: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        now_s = self._clock.wall()
        return [
            {"model": model, "for_s": round(max(0.0, asked_until_s - now_s), 1)}
            for model, _, _, asked_until_s in parked
            if self._upstream_of(model) == name
        ][:_MOST_PARKED]
