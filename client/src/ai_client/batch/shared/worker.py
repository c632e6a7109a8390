"""Works through the chunks of all shared batches of an account, as many lines at once as this host may.

Lines are begun while the chunk is surely this host's (`held.py`); what a line comes to is kept by the engine once,
whoever is first. A host that can't send (no gateway, no money, no key) gives its chunks back and pauses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from ai_client.batch import lines
from ai_client.batch.caller import Answer, GatewayAbsentError
from ai_client.batch.lines import BadLine, RequestLine
from ai_client.batch.shared.chunks import lines_of
from ai_client.batch.shared.engine import RETRY_S, BatchEngine, tend
from ai_client.batch.shared.fetching import result_about
from ai_client.batch.shared.held import HeldChunk, Line
from ai_client.batch.shared.sealing import BatchSeal, HostKey, SealError
from ai_client.batch.shared.submission import chunk_about
from ai_client.coordination.batch_protocol import BatchTerms, Begun, Chunk, Hold
from ai_client.coordination.endpoint import EngineError
from ai_client.platform import json_log
from ai_client.settings import KeyMissingError

# Where there is nothing to do, twice as long each time.
LOOK_EVERY_S = (1.0, 8.0)
PAUSE_S = 30.0
TEND_EVERY_S = 60.0
TEND_ALL_EVERY = 60
# A host that stops tells the engine so for as long at most.
STOP_S = 5.0
_BUDGET = "budget_exceeded"

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Sender(Protocol):
    """`LineSender`, or what stands for it."""

    async def send(self, line: RequestLine, *, batch_name: str = "") -> Answer: ...


@dataclass(frozen=True, slots=True)
class SharedWorkerPlan:
    """How a host works. `consumer` is `HOST/PROCESS`, of no other process; `keys` reads the host's keys anew."""

    consumer: str
    keys: Callable[[], Sequence[HostKey]]
    at_once: int
    max_line_bytes: int
    pause_s: float = PAUSE_S
    terms: BatchTerms = field(default_factory=BatchTerms)


class SharedWorker:
    """One a process. `run` returns after `stop`, once what was under way has ended.

    `clock` is in seconds, of a clock that goes on while the host is suspended.
    """

    def __init__(
        self,
        engine: BatchEngine,
        sender: Sender,
        plan: SharedWorkerPlan,
        *,
        clock: Callable[[], float],
        wait: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self._engine = engine
        self._sender = sender
        self._plan = plan
        self._clock = clock
        self._wait = wait
        self._held: list[HeldChunk] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(plan.at_once)
        self._stopping = asyncio.Event()
        self._paused_until_ms = self._stops_by_ms = 0
        self._trouble: str | None = None
        self._keys: dict[str, HostKey] = {}
        #: By batch, the keys that it was seen to be sealed with.
        self._tended: dict[str, frozenset[str]] = {}
        self._tended_rounds = 0

    def stop(self) -> None:
        """Begin no more lines."""
        self._stops_by_ms = self._now_ms() + int(STOP_S * 1000)
        self._stopping.set()

    async def run(self) -> None:
        """Work until told to stop."""
        background = [asyncio.create_task(each()) for each in (self._keep_holding, self._keep_tending)]
        try:
            least_s, most_s = LOOK_EVERY_S
            look_s = least_s
            while not self._stopping.is_set():
                await self._unless_stopped(self._room.acquire())
                if await self._begin_one():
                    look_s = least_s
                    continue
                self._room.release()
                await self._unless_stopped(self._wait(look_s))
                look_s = min(2 * look_s, most_s)
            await self._end()
        finally:
            for task in background:
                task.cancel()

    async def _begin_one(self) -> bool:
        """Begins a line of a chunk that is held, or else of a new one: whether there was one."""
        if self._stopping.is_set() or self._now_ms() < self._paused_until_ms:
            return False
        if not any(held.may_begin(self._now_ms()) for held in self._held):
            taken = await self._guarded(self._take)
            if taken is None:
                return False
            self._held.append(taken)
        for held in self._held:
            line = held.begin(self._now_ms())
            if line is not None:
                task = asyncio.create_task(self._one(held, line))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                return True
        return False

    async def _take(self) -> HeldChunk | None:
        plan = self._plan
        if not self._known_keys():
            return None
        asked_at_ms = self._now_ms()
        chunk = await self._engine.take(plan.consumer, idle_ms=plan.terms.idle_ms)
        if chunk is None or any(held.chunk == chunk for held in self._held):
            return None
        begun = await self._engine.begin(plan.consumer, chunk)
        if begun.hold is not Hold.HELD:
            return None
        try:
            seal, found = self._unsealed(chunk, begun)
        except SealError as exc:
            self._pause(f"{exc} (batch {chunk.batch})")
            await self._engine.release(plan.consumer, chunk)
            return None
        self._goes_on()
        return HeldChunk.of(chunk, seal, found, terms=plan.terms, asked_at_ms=asked_at_ms)

    def _unsealed(self, chunk: Chunk, begun: Begun) -> tuple[BatchSeal, list[Line]]:
        """The lines that have no result yet. Raises SealError."""
        seal = BatchSeal.from_keys(chunk.batch, begun.keys, self._known_keys())
        packed = seal.unseal(begun.sealed, chunk_about(chunk.first, chunk.last))
        every = lines_of(packed, max_line_bytes=self._plan.max_line_bytes)
        return seal, [line for line in every if not begun.is_done(chunk, line.number)]

    def _known_keys(self) -> list[HostKey]:
        """Those of now, then those that this process has seen before: of batches that began before a rotation."""
        self._keys_of_now()
        return list(self._keys.values())

    def _keys_of_now(self) -> Sequence[HostKey]:
        try:
            now = self._plan.keys()
        except KeyMissingError as exc:
            self._told(str(exc))
            return ()
        self._keys = {key.name: key for key in now} | self._keys
        return now

    async def _one(self, held: HeldChunk, line: Line) -> None:
        try:
            result = await self._result(held, line)
            if result is not None:
                await self._keep(held, line, result[0], failed=result[1])
        except GatewayAbsentError as exc:
            self._pause(str(exc))
        finally:
            held.ended()
            self._room.release()
        if held.is_over:
            await self._guarded(partial(self._let_go, held))

    async def _result(self, held: HeldChunk, line: Line) -> tuple[bytes, bool] | None:
        """A line of the output and whether it failed; None where it is to be sent later. Raises GatewayAbsentError."""
        if isinstance(line, BadLine):
            return lines.rejection(line), True
        answer = await self._sender.send(line, batch_name=held.chunk.batch)
        if answer.code == _BUDGET or answer.is_out_of_quota:
            self._pause(answer.message)
            return None
        if answer.code:
            return lines.failure(
                line, status=answer.status, code=answer.code, message=answer.message, body=answer.body
            ), True
        return lines.success(
            line,
            status=answer.status,
            request_id=answer.request_id,
            body=answer.body,
            cost_usd=answer.cost_usd,
        ), False

    async def _keep(self, held: HeldChunk, line: Line, result: bytes, *, failed: bool) -> None:
        """Has the engine keep a result, for as long as it takes: it was paid for."""
        sealed = held.seal.seal(result, result_about(line.number))
        while True:
            try:
                await self._engine.answer(held.chunk, line.number, sealed, failed=failed)
            except EngineError as exc:
                self._told(str(exc))
                if self._stopping.is_set() and self._now_ms() > self._stops_by_ms:
                    return
                await self._wait(RETRY_S)
            else:
                return

    async def _let_go(self, held: HeldChunk) -> None:
        """Gives back what is left of a chunk; of one that is done the engine knows so already."""
        if held in self._held:
            self._held.remove(held)
            if held.todo or held.is_given_up or held.hold is not Hold.HELD:
                await self._engine.release(self._plan.consumer, held.chunk)

    async def _keep_holding(self) -> None:
        while True:
            await self._wait(self._plan.terms.renew_ms / 4000)
            for held in list(self._held):
                if held.is_over:
                    await self._guarded(partial(self._let_go, held))
                elif held.is_due(self._now_ms()):
                    await self._guarded(partial(self._renew, held))

    async def _renew(self, held: HeldChunk) -> None:
        asked_at_ms = self._now_ms()
        hold = await self._engine.hold(self._plan.consumer, held.chunk)
        held.renewed(hold, asked_at_ms=asked_at_ms)

    async def _keep_tending(self) -> None:
        """Batches outlive a change of the provider's key: each has its own key sealed with those of now."""
        while True:
            await self._guarded(self._tend)
            await self._wait(TEND_EVERY_S)

    async def _tend(self) -> None:
        now = self._keys_of_now()
        self._tended_rounds += 1
        if self._tended_rounds % TEND_ALL_EVERY == 0:
            self._tended.clear()
        names = {key.name for key in now}
        for name, batch in (await self._engine.index()).items():
            if names <= self._tended.get(batch, frozenset()):
                continue
            state = await self._engine.look(batch)
            if state is None:
                # It ended a week ago, and is forgotten.
                await self._engine.discard(batch, name)
            else:
                self._tended[batch] = frozenset(state.keys)
                try:
                    await tend(self._engine, state, self._known_keys(), now=now)
                except SealError as exc:
                    self._told(f"{exc} (batch {state.name})")

    def _pause(self, reason: str) -> None:
        """Begins nothing for a while, and leaves what is held to others."""
        self._told(reason)
        self._paused_until_ms = self._now_ms() + int(self._plan.pause_s * 1000)
        for held in self._held:
            held.give_up()

    async def _end(self) -> None:
        """Leaves to others what was not begun, and waits for what was."""
        for held in list(self._held):
            held.give_up()
            if held.is_over:
                await self._guarded(partial(self._let_go, held))
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _guarded(self, call: Callable[[], Awaitable[_T]]) -> _T | None:
        """The answer, or None where the engine gives none."""
        try:
            return await call()
        except EngineError as exc:
            self._told(str(exc))
            return None

    async def _unless_stopped(self, waiting: Coroutine[Any, Any, object]) -> None:
        """Waits for something, or until told to stop."""
        tasks = {asyncio.create_task(waiting), asyncio.create_task(self._stopping.wait())}
        _, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()

    def _told(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            _log.warning("shared_batch_waits", extra=json_log.fields({"reason": trouble}))

    def _goes_on(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            _log.info("shared_batch_goes_on")

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
