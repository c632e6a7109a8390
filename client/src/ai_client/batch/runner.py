"""Works through a batch: so many lines at once, every line answered once, stopping where money or service ends."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ai_client.batch import lines
from ai_client.batch.caller import Answer, GatewayAbsentError, LineSender
from ai_client.batch.lines import INVALID_LINE, BadLine, RequestLine
from ai_client.batch.output import Done, LineFile, check_apart
from ai_client.batch.source import Source, check_same

SYNC_EVERY_S = 1.0


class BatchEnd(StrEnum):
    """How a run ended."""

    DONE = "done"
    BUDGET = "budget"
    #: The provider's account has no credit, or its quota is spent for long.
    QUOTA = "quota"
    ABSENT = "absent"
    STOPPED = "stopped"
    #: An output can't be written: a full disk, mostly. What is answered is in the files, and nothing else counts.
    UNWRITABLE = "unwritable"


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

    def __init__(self, plan: Plan, caller: LineSender) -> None:
        self._plan = plan
        self._caller = caller
        self._done = Done()
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(plan.at_once)
        self._set_aside_usd = 0.0
        self.tally = Tally()
        self.ending: BatchEnd | None = None
        self.trouble = ""
        self.source: Source | None = None

    def stop(self) -> None:
        """Send no more; what is under way still ends."""
        self._end(BatchEnd.STOPPED)

    async def run(self) -> BatchEnd:
        """Work through it. Raises InputError, OutputError.

        Where an output can't be written, nothing more is sent and the ending is UNWRITABLE: the same run goes on later.
        """
        try:
            await self._run()
        except OSError as exc:
            self._is_unwritable(exc)
        return self.ending or BatchEnd.DONE

    async def _run(self) -> None:
        plan = self._plan
        memory = plan.output.with_name(plan.output.name + ".input")
        check_apart(plan.output, plan.errors, memory)
        with LineFile(plan.output) as output, LineFile(plan.errors) as errors:
            check_same(plan.source, memory)
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

    def _recover(self, output: LineFile, errors: LineFile) -> None:
        for file in (output, errors):
            for answered in file.recover():
                if self._done.add(answered.number):
                    self.tally.note(code=answered.code, cost_usd=answered.cost_usd)

    async def _dispatch(self, source: Source, output: LineFile, errors: LineFile) -> None:
        for line in source:
            if self._is_ending():
                return
            if isinstance(line, BadLine):
                errors.append(lines.rejection(line))
                self.tally.note(code=INVALID_LINE, cost_usd=0.0)
                # Nothing else in this branch lets the loop turn.
                await asyncio.sleep(0)
                continue
            await self._room.acquire()
            # Without a cap nobody asks.
            worst_usd = 0.0 if self._plan.max_usd is None else self._plan.worst_usd(line)
            if not await self._fits(worst_usd):
                self._end(BatchEnd.BUDGET)
                self.trouble = self._over_cap(line, worst_usd)
            if self._is_ending():
                return
            self._set_aside_usd += worst_usd
            task = asyncio.create_task(self._one(line, worst_usd, output, errors))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _fits(self, worst_usd: float) -> bool:
        """Whether a line may go. What is in flight mostly costs far less than its worst: it is waited for."""
        while self._is_over_cap(worst_usd) and self._tasks and not self._is_ending():
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        return not self._is_over_cap(worst_usd)

    def _is_over_cap(self, worst_usd: float) -> bool:
        cap = self._plan.max_usd
        return cap is not None and self.tally.cost_usd + self._set_aside_usd + worst_usd > cap

    def _over_cap(self, line: RequestLine, worst_usd: float) -> str:
        if math.isinf(worst_usd):
            return (
                f"nothing bounds what line {line.number} may cost, so that no cap can hold: give its model a price,"
                " and leave out search, other models and tools of the provider's own; or leave out --max-usd"
            )
        return (
            f"the cap of ${self._plan.max_usd} is too low: ${self.tally.cost_usd:.4f} are spent, and line "
            f"{line.number} may cost up to ${worst_usd:.4f}; raise --max-usd, or set max_tokens in the lines"
        )

    async def _one(self, line: RequestLine, worst_usd: float, output: LineFile, errors: LineFile) -> None:
        self.tally.sent += 1
        try:
            answer = await self._caller.send(line)
        except GatewayAbsentError as exc:
            self.trouble = str(exc)
            self._end(BatchEnd.ABSENT)
        else:
            try:
                self._write(line, answer.counted(worst_usd), output, errors)
            except OSError as exc:
                self._is_unwritable(exc)
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
            self._end(BatchEnd.BUDGET)
            return
        elif answer.is_out_of_quota:
            # Nor is this: the next lines would fail for it, too.
            self.trouble = answer.message
            self._end(BatchEnd.QUOTA)
            return
        else:
            errors.append(
                lines.failure(
                    line, status=answer.status, code=answer.code, message=answer.message, body=answer.body
                )
            )
        self.tally.note(code=answer.code, cost_usd=answer.cost_usd)

    def _is_ending(self) -> bool:
        return self.ending is not None

    def _end(self, ending: BatchEnd) -> None:
        if self.ending is None:
            self.ending = ending

    def _is_unwritable(self, error: OSError) -> None:
        self.trouble = (
            f"{error.filename or self._plan.output} can't be written ({error.strerror}); make room there"
        )
        # It outdoes any other ending: what was to be written is not.
        self.ending = BatchEnd.UNWRITABLE

    async def _sync(self, output: LineFile, errors: LineFile) -> None:
        try:
            while True:
                await asyncio.sleep(SYNC_EVERY_S)
                await asyncio.to_thread(output.sync)
                await asyncio.to_thread(errors.sync)
        except OSError as exc:
            self._is_unwritable(exc)
