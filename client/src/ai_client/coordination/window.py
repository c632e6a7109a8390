"""A sliding window whose limits are leased: what the lease allows at the moment, checked at each admission."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ai_client.admission.window import SlidingWindow
from ai_client.coordination.lease import Lease, Mode, Moment

# While there is no lease, what may be used changes by time alone: it is looked at this often.
_LOOK_S = 0.25


class LeasedWindow(SlidingWindow):
    """Requests by `requests`, tokens by `tokens` (None: unlimited).

    `boot` and `wall` are the host's clocks in seconds: the first goes on while the machine is suspended. A process that
    was stopped past its lease finds it ended at its first admission.
    """

    __slots__ = (
        "_boot",
        "_ends_boot_s",
        "_ends_wall_s",
        "_has_lapsed",
        "_is_leased",
        "_is_over",
        "_wall",
        "requests",
        "tokens",
    )

    def __init__(
        self,
        requests: Lease,
        tokens: Lease | None,
        *,
        boot: Callable[[], float],
        wall: Callable[[], float],
        network_delay_s: float = 0.1,
    ) -> None:
        super().__init__(limit_requests=0, limit_tokens=None, network_delay_s=network_delay_s)
        self.requests = requests
        self.tokens = tokens
        self._boot = boot
        self._wall = wall
        self._is_leased = self._has_lapsed = self._is_over = False
        self._ends_boot_s = -math.inf
        self._ends_wall_s = math.inf
        self.renew()

    @property
    def leases(self) -> tuple[Lease, ...]:
        """Those that there are."""
        return (self.requests,) if self.tokens is None else (self.requests, self.tokens)

    @property
    def largest_tokens(self) -> int | None:
        """A request that needs more is refused: what it needs may yet be lent, so the host's own share counts too."""
        return None if self.tokens is None else max(self.limit_tokens or 0, self.tokens.share)

    def now(self) -> Moment:
        """Both clocks."""
        return Moment(int(self._boot() * 1000), int(self._wall() * 1000))

    def renew(self) -> None:
        """Takes what the leases allow now."""
        now = self.now()
        self.limit_requests = self.requests.limit(now)
        self.limit_tokens = None if self.tokens is None else self.tokens.limit(now)
        left_s = min(each.ends_in_ms(now) for each in self.leases) / 1000
        # The clocks were cut to whole milliseconds: a lease ends no later than that.
        self._is_leased = self.mode(now) is Mode.LEASED
        self._has_lapsed = any(each.has_lapsed for each in self.leases)
        left_s = left_s - 0.002 if self._is_leased else _LOOK_S
        self._ends_boot_s = now.boot_ms / 1000 + left_s
        self._ends_wall_s = now.wall_ms / 1000 + left_s

    def mode(self, now: Moment) -> Mode:
        """Where the limit on requests comes from."""
        return self.requests.mode(now)

    def fits(self, tokens: int, now_s: float) -> bool:
        """Whether one more request that needs `tokens` may go now."""
        if self._boot() >= self._ends_boot_s or self._wall() >= self._ends_wall_s:
            self.renew()
        return not self._is_over and super().fits(tokens, now_s)

    def may_write(self) -> bool:
        """Whether what was admitted may still be written: `Lease.may_write`.

        A process that was stopped between admission and write finds its lease ended here.
        """
        if self._is_over:
            return False
        if self._boot() >= self._ends_boot_s or self._wall() >= self._ends_wall_s:
            self.renew()
        if self._is_leased and not self._has_lapsed:
            return True
        now = self.now()
        has_tokens = self.tokens is None or self.tokens.may_write(now, used=self.used_tokens)
        return has_tokens and self.requests.may_write(now, used=self.used_requests)

    def hand_over(self) -> list[dict[str, Any]]:
        """The leases for the next process of this host, as JSON data: this one sends nothing more."""
        self._is_over = True
        return [each.as_json() for each in self.leases]

    def take_back(self) -> None:
        """The other process does not serve after all. What it used is not known: the books are asked first."""
        self._is_over = False
        for each in self.leases:
            each.lapse()
        self.renew()

    def inherit(self, told: object) -> bool:
        """Goes on with what the process before handed over. Whether it was understood; else the books are asked."""
        if not isinstance(told, list) or len(told) != len(self.leases):
            return False
        now, mine = self.now(), self.leases
        heard = [
            Lease.inherit(each, own.host, share=own.share, floor=own.floor, now=now, terms=own.terms)
            for each, own in zip(told, mine, strict=True)
        ]
        if heard[0] is None or heard[-1] is None:
            return False
        self.requests = heard[0]
        self.tokens = None if self.tokens is None else heard[-1]
        self.renew()
        return True

    def set_limits(self, *, requests: int | None, tokens: int | None) -> None:
        """The host's own shares, from now on."""
        if requests is not None:
            self.requests.reshare(share=requests, floor=floor_of(requests))
        if tokens is not None and self.tokens is not None:
            self.tokens.reshare(share=tokens, floor=floor_of(tokens))
        self.renew()

    def earliest_s(self, *, ahead: int, tokens: int, now_s: float) -> float:
        """More may be lent at any moment, so no request is refused for coming too late."""
        return now_s


def floor_of(share: int) -> int:
    """What of a share is never lent: 2 %, and one."""
    return max(1, share // 50)
