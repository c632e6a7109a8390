"""Keeps a host's leases: one task that calls the engine when the leases say so, and tells all hosts of a 429."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ai_client.contract.events import Event, Throttled
from ai_client.coordination.endpoint import Endpoint, EngineError
from ai_client.coordination.lease import Lease, Mode
from ai_client.coordination.link import EngineLink, Listener
from ai_client.coordination.protocol import Kind, QuotaAnswer, Terms
from ai_client.coordination.status import RECOVERING, Status, status_of
from ai_client.coordination.window import LeasedWindow
from ai_client.coordination.wire import Keys
from ai_client.platform import json_log

# How often demand is compared with what there is, and how often an engine that is away is asked.
_LOOK_S = 0.5
_RETRY_S = (1.0, 4.0)
# Pauses of one lane that begin within this time of each other are told once.
_TOLD_S = 0.2
_LONGEST_PAUSE_S = 3600.0
_MOST_TO_TELL = 64
# A name that was lost twice in this time is another host's, too: each of both calls every 16 s.
_NAMESAKE_S = 90.0
_NAMESAKE = (
    "coordination engine: another process uses this host's name; give each its own host in [coordination]"
)

_log = logging.getLogger(__name__)


class Admission(Protocol):
    """What the coordinator needs of the client."""

    def queued(self) -> int: ...

    def window_changed(self) -> None: ...

    def hold(self, model: str, key_fingerprint: str, pause_s: float) -> None: ...


class Rider(Protocol):
    """What calls the same engine for something else, on the same connection, between the leases' calls."""

    def is_due(self) -> bool: ...

    async def ride(self, link: EngineLink) -> None:
        """Calls. What goes wrong is the rider's own affair."""


class Coordinator:
    """See the module. `run` ends when it is cancelled.

    `account` names the quota, alike on all its hosts; `most`: requests a span that this host never asks more than;
    `report` gives what the host says of itself, which goes with each call and decides nothing.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        account: str,
        window: LeasedWindow,
        admission: Admission,
        most: int,
        terms: Terms,
        random_source: random.Random,
        report: Callable[[], str] = str,
        rider: Rider | None = None,
    ) -> None:
        self._window = window
        self._most = most
        self._admission = admission
        self._random = random_source
        self._report = report
        self._rider = rider
        self._keys = Keys(account, ("requests",) if window.tokens is None else ("requests", "tokens"))
        self._link = EngineLink(endpoint, timeout_s=terms.answer_ms / 1000)
        self._listener = Listener(endpoint, self._keys.pauses, timeout_s=terms.answer_ms / 1000)
        self._to_tell: deque[bytes] = deque(maxlen=_MOST_TO_TELL)
        self._told_at_s: dict[tuple[str, str], float] = {}
        self._wake = asyncio.Event()
        self._retry_at_s = 0.0
        self._trouble: str | None = None
        self._mode: Mode | None = None
        #: The epoch that is being recovered, as it was logged; "" where none is.
        self._recovering = ""
        self._displaced = 0
        self._displaced_at_s: deque[float] = deque(maxlen=2)
        self._calls = self._failures = self._told = self._heard = 0

    async def run(self) -> None:
        """Calls and listens until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep())
                tasks.create_task(self._listen())
        finally:
            await self._link.close()
            await self._listener.close()

    def renew(self, endpoint: Endpoint) -> None:
        """Ask there from now on, as that user: at the next call, never in the middle of one."""
        self._link.renew(endpoint)
        self._listener.renew(endpoint)

    def ask_at_most(self, most: int) -> None:
        """Requests a span that this host never asks more than, from the next call on."""
        self._most = most

    def status(self) -> Status:
        """How it stands."""
        return status_of(
            self._window,
            trouble=self._trouble,
            calls=self._calls,
            failures=self._failures,
            pauses_told=self._told,
            pauses_heard=self._heard,
        )

    def __call__(self, event: Event) -> None:
        """A listener of the client's events: the upstream told this host to wait, so all are to."""
        if not isinstance(event, Throttled):
            return
        lane = (event.model, event.key_fingerprint)
        now_s = self._now_s()
        if now_s - self._told_at_s.get(lane, float("-inf")) < _TOLD_S:
            return
        self._told_at_s[lane] = now_s
        message = {"from": self._window.requests.instance, "model": lane[0], "key": lane[1]}
        self._to_tell.append(json.dumps({**message, "pause_s": round(event.pause_s, 3)}).encode())
        self._wake.set()

    async def _keep(self) -> None:
        while True:
            await self._tell()
            if self._is_due():
                await self._call()
            self._renew()
            if self._rider is not None and self._now_s() >= self._retry_at_s and self._rider.is_due():
                await self._rider.ride(self._link)
            self._wake.clear()
            if not self._to_tell:
                try:
                    async with asyncio.timeout(_LOOK_S):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    def _is_due(self) -> bool:
        now = self._window.now()
        # A host whose lease has just ended may send nothing before it has asked once more: that is not put off.
        if self._now_s() < self._retry_at_s and self._window.mode(now) is not Mode.EXPIRED:
            return False
        due = (each.due_in_ms(now, used=used, demand=demand) for each, used, demand in self._uses())
        return min(due) <= 0

    def _uses(self) -> list[tuple[Lease, int, int]]:
        """Each lease, what is used of it, and what could be: a tenth more than now, and those that wait."""
        window = self._window
        window.fits(0, asyncio.get_running_loop().time())
        queued = self._admission.queued()
        requests = window.used_requests
        uses = [(window.requests, requests, min(self._most, requests + requests // 10 + queued + 1))]
        if window.tokens is not None:
            tokens = max(0, window.used_tokens)
            each = tokens // max(1, requests) + 1
            uses.append((window.tokens, tokens, tokens + tokens // 10 + (queued + 1) * each))
        return uses

    async def _call(self) -> None:
        # An answer counts by when its call was sent: the time that the way there takes is not the answer's.
        refusal = await self._refusal()
        now = self._window.now()
        uses = self._uses()
        requests = [lease.begin(now, used=used, demand=demand) for lease, used, demand in uses]
        self._window.renew()
        self._calls += 1
        answers: list[QuotaAnswer] = []
        try:
            if refusal is not None:
                raise refusal
            answers = await self._link.call(self._keys, requests, report=self._report())
        except EngineError as exc:
            self._fail(str(exc))
        now = self._window.now()
        for (lease, _, _), request, answer in zip(uses, requests, answers, strict=False):
            if not lease.end(answer, now, number=request.number):
                self._fail(self._late(answer))
        for (lease, _, _), request in zip(uses, requests, strict=True):
            lease.failed(number=request.number)
        if answers and self._now_s() >= self._retry_at_s:
            self._note_trouble(self._namesake())
        self._note_epoch()

    async def _refusal(self) -> EngineError | None:
        """Why there is no way to the engine; None where there is one."""
        try:
            await self._link.open()
        except EngineError as exc:
            return exc
        return None

    def _namesake(self) -> str | None:
        """Whether another process is in the books under this host's name, again and again: both use the same slots."""
        displaced, now_s = self._window.requests.displaced, self._now_s()
        if displaced > self._displaced:
            self._displaced_at_s.append(now_s)
            self._displaced = displaced
        again = len(self._displaced_at_s) == 2 and now_s - self._displaced_at_s[0] < _NAMESAKE_S
        return _NAMESAKE if again else None

    def _late(self, answer: QuotaAnswer) -> str:
        return "coordination engine: an answer came too late" if answer.kind is not Kind.STALE else _NAMESAKE

    def _fail(self, trouble: str) -> None:
        self._failures += 1
        self._listener.doubt()
        self._retry_at_s = self._now_s() + self._random.uniform(*_RETRY_S)
        self._note_trouble(trouble)

    def _note_trouble(self, trouble: str | None) -> None:
        before, self._trouble = self._trouble, trouble
        if trouble is not None and trouble != before:
            _log.error("coordination_lost", extra=json_log.fields({"reason": trouble}))
        elif trouble is None and before is not None:
            _log.info("coordination_back")

    def _note_epoch(self) -> None:
        """Whether the books know what was lent. Those of an engine that took another's place don't."""
        answer = self._window.requests.answer
        if answer is None:
            return
        before, self._recovering = self._recovering, answer.epoch if answer.recovering else ""
        if self._recovering and self._recovering != before:
            _log.warning("quota_recovering", extra=json_log.fields({"reason": RECOVERING}))
        elif before and not self._recovering:
            _log.info("quota_recovered")

    def _renew(self) -> None:
        """What the leases allow now, and those who wait for it."""
        before = (self._window.limit_requests, self._window.limit_tokens)
        self._window.renew()
        mode = self._window.mode(self._window.now())
        if mode is not self._mode:
            # Where a service begins says nothing of the engine: whether that answers, the first call shows.
            is_usual = mode is Mode.LEASED or self._mode is None
            level = logging.INFO if is_usual else logging.WARNING
            limit = self._window.limit_requests
            _log.log(level, "quota_mode", extra=json_log.fields({"mode": mode.value, "limit": limit}))
            self._mode = mode
        if (self._window.limit_requests, self._window.limit_tokens) != before or mode is Mode.LEASED:
            self._admission.window_changed()

    async def _tell(self) -> None:
        while self._to_tell and self._now_s() >= self._retry_at_s:
            message = self._to_tell.popleft()
            try:
                await self._link.publish(self._keys.pauses, message)
            except EngineError as exc:
                self._fail(str(exc))
                return
            self._told += 1

    async def _listen(self) -> None:
        while True:
            try:
                message = await self._listener.next()
            except EngineError:
                # The calls tell what is the matter.
                await asyncio.sleep(self._random.uniform(*_RETRY_S))
                continue
            self._hear(message)

    def _hear(self, message: bytes) -> None:
        """Whoever may publish there can slow this host down, for an hour at most; nothing else."""
        try:
            told = json.loads(message)
            sender, model, key = (str(told[name]) for name in ("from", "model", "key"))
            pause_s = float(told["pause_s"])
        except (ValueError, TypeError, KeyError):
            _log.warning("coordination_message_unknown")
            return
        if sender != self._window.requests.instance and 0 <= pause_s <= _LONGEST_PAUSE_S:
            self._heard += 1
            self._admission.hold(model, key, pause_s)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
