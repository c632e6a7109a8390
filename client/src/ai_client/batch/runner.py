"""Works through a batch: so many lines at once, every line answered once, stopping where money or service ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ai_client.batch import lines
from ai_client.batch.caller import Answer, Caller, GatewayAbsentError
from ai_client.batch.lines import INVALID_LINE, BadLine, RequestLine
from ai_client.batch.output import Done, LineFile
from ai_client.batch.source import Source, check_same

SYNC_EVERY_S = 1.0


class Ending(StrEnum):
    """How a run ended."""

    DONE = "done"
    BUDGET = "budget"
    ABSENT = "absent"
    STOPPED = "stopped"


@dataclass(slots=True)
class Tally:
    """What a batch has come to, earlier runs included."""

    answered: int = 0
    failed: int = 0
    rejected: int = 0
    cost_usd: float = 0.0
    sent: int = 0

    def note(self, *, code: str, cost_usd: float) -> None:
        """Count a finished line."""
        self.cost_usd += cost_usd
        if not code:
            self.answered += 1
        elif code == INVALID_LINE:
            self.rejected += 1
        else:
            self.failed += 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `worst_usd` gives what a line may cost at most, for the cap."""

    source: Path
    output: Path
    errors: Path
    at_once: int
    max_line_bytes: int
    max_usd: float | None
    worst_usd: Callable[[RequestLine], float]
    retry_failed: bool


class Batch:
    """One run of a batch."""

    def __init__(self, plan: Plan, caller: Caller) -> None:
        self._plan = plan
        self._caller = caller
        self._done = Done()
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(plan.at_once)
        self._set_aside_usd = 0.0
        self.tally = Tally()
        self.ending: Ending | None = None
        self.trouble = ""
        self.source: Source | None = None

    def stop(self) -> None:
        """Send no more; what is under way still ends."""
        self._end(Ending.STOPPED)

    async def run(self) -> Ending:
        """Work through it. Raises InputError, OutputError."""
        plan = self._plan
        with LineFile(plan.output) as output, LineFile(plan.errors) as errors:
            check_same(plan.source, plan.output.with_name(plan.output.name + ".input"))
            if plan.retry_failed:
                errors.drop_failures()
            self._recover(output, errors)
            self.source = Source(plan.source, done=self._done, max_line_bytes=plan.max_line_bytes)
            syncing = asyncio.create_task(self._sync(output, errors))
            try:
                await self._dispatch(self.source, output, errors)
            finally:
                syncing.cancel()
                if self._tasks:
                    await asyncio.wait(self._tasks)
            output.sync()
            errors.sync()
        return self.ending or Ending.DONE

    def _recover(self, output: LineFile, errors: LineFile) -> None:
        for file in (output, errors):
            for answered in file.recover():
                if self._done.add(answered.number):
                    self.tally.note(code=answered.code, cost_usd=answered.cost_usd)

    async def _dispatch(self, source: Source, output: LineFile, errors: LineFile) -> None:
        for line in source:
            if isinstance(line, BadLine):
                errors.append(lines.rejection(line))
                self.tally.note(code=INVALID_LINE, cost_usd=0.0)
                # Nothing else in this branch lets the loop turn.
                await asyncio.sleep(0)
                continue
            await self._room.acquire()
            worst_usd = self._plan.worst_usd(line)
            if self._is_over_cap(worst_usd):
                self._end(Ending.BUDGET)
                self.trouble = f"the cap of ${self._plan.max_usd} is reached"
            if self.ending is not None:
                return
            self._set_aside_usd += worst_usd
            task = asyncio.create_task(self._one(line, worst_usd, output, errors))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _is_over_cap(self, worst_usd: float) -> bool:
        cap = self._plan.max_usd
        return cap is not None and self.tally.cost_usd + self._set_aside_usd + worst_usd > cap

    async def _one(self, line: RequestLine, worst_usd: float, output: LineFile, errors: LineFile) -> None:
        self.tally.sent += 1
        try:
            answer = await self._caller.send(line)
        except GatewayAbsentError as exc:
            self.trouble = str(exc)
            self._end(Ending.ABSENT)
        else:
            self._write(line, answer, output, errors)
        finally:
            self._set_aside_usd -= worst_usd
            self._room.release()

    def _write(self, line: RequestLine, answer: Answer, output: LineFile, errors: LineFile) -> None:
        if not answer.code:
            output.append(
                lines.success(
                    line,
                    status=answer.status,
                    request_id=answer.request_id,
                    body=answer.body,
                    cost_usd=answer.cost_usd,
                )
            )
        elif answer.code == "budget_exceeded":
            # Not the line's fault: it stays to be done when there is money again.
            self.trouble = answer.message
            self._end(Ending.BUDGET)
            return
        else:
            errors.append(
                lines.failure(
                    line, status=answer.status, code=answer.code, message=answer.message, body=answer.body
                )
            )
        self.tally.note(code=answer.code, cost_usd=answer.cost_usd)

    def _end(self, ending: Ending) -> None:
        if self.ending is None:
            self.ending = ending

    @staticmethod
    async def _sync(output: LineFile, errors: LineFile) -> None:
        while True:
            await asyncio.sleep(SYNC_EVERY_S)
            await asyncio.to_thread(output.sync)
            await asyncio.to_thread(errors.sync)
