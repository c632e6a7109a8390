"""Works through a spool folder: one file after another, each as `batch run` does it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ai_client.batch.caller import LineSender
from ai_client.batch.lines import RequestLine
from ai_client.batch.output import OutputError
from ai_client.batch.runner import Batch, BatchEnd, Plan
from ai_client.batch.source import InputError
from ai_client.batch.spool import Claim, Spool
from ai_client.platform import json_log

LOOK_EVERY_S = 1.0
# Money and service come back by themselves, but not within a second.
PAUSE_S = 30.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """How a worker works. `max_attempts` per file, and per line for what passes by itself."""

    socket: Path
    at_once: int
    max_attempts: int
    max_line_bytes: int
    pause_s: float = PAUSE_S
    look_every_s: float = LOOK_EVERY_S


class Worker:
    """One of any number. `run` returns after `stop`, or with `once` when the folder is empty."""

    def __init__(self, spool: Spool, plan: WorkerPlan) -> None:
        self._spool = spool
        self._plan = plan
        self._stopping = asyncio.Event()
        self._batch: Batch | None = None

    def stop(self) -> None:
        """Send no more; what is under way ends, and the file waits for the next worker."""
        self._stopping.set()
        if self._batch is not None:
            self._batch.stop()

    async def run(self, *, once: bool) -> None:
        """Claim and work."""
        while not self._stopping.is_set():
            claim = self._spool.claim()
            for name, reason in self._spool.take_refused():
                _log.error("spool_file_failed", extra=json_log.fields({"file": name, "reason": reason}))
            if claim is not None:
                pause_s = await self._work(claim)
            elif once:
                return
            else:
                pause_s = self._plan.look_every_s
            if pause_s > 0:
                await self._wait(pause_s)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _work(self, claim: Claim) -> float:
        """One file: how long to wait before the next."""
        try:
            return await self._try(claim)
        except OSError as exc:
            # The spool's disk is full or at fault: the file is as good as before, and waits.
            facts = {"file": claim.name, "path": exc.filename or "", "reason": exc.strerror or str(exc)}
            _log.error("spool_unwritable", extra=json_log.fields(facts))
            claim.release()
            return self._plan.pause_s

    async def _try(self, claim: Claim) -> float:
        if claim.finish_interrupted():
            return 0.0
        number = claim.begin()
        if number > self._plan.max_attempts:
            folder = claim.fail(
                f"given up after {self._plan.max_attempts} attempts that ended without a result"
            )
            _log.error("spool_file_failed", extra=json_log.fields({"file": claim.name, "folder": folder}))
            return 0.0
        _log.info("spool_file_begun", extra=json_log.fields({"file": claim.name, "attempt": number}))
        try:
            return await self._batch_of(claim)
        except (InputError, OutputError) as exc:
            folder = claim.fail(str(exc))
            _log.error("spool_file_failed", extra=json_log.fields({"file": claim.name, "reason": str(exc)}))
            return 0.0

    async def _batch_of(self, claim: Claim) -> float:
        plan = self._plan
        # The inode and not the name: a second file of the same name is another batch.
        inode = claim.source.stat().st_ino
        name = hashlib.sha256(f"{claim.source}\0{inode}".encode()).hexdigest()[:16]
        caller = LineSender(
            plan.socket, batch_name=name, max_attempts=plan.max_attempts, at_once=plan.at_once
        )
        async with caller:
            self._batch = Batch(_plan_of(claim, plan, worst_usd=_free_of_charge), caller)
            if self._stopping.is_set():
                self._batch.stop()
            ending = await self._batch.run()
        tally, trouble = self._batch.tally, self._batch.trouble
        self._batch = None
        facts = {"file": claim.name, "ending": ending, "answered": tally.answered, "failed": tally.failed}
        _log.info(
            "spool_file_ended", extra=json_log.fields({**facts, "cost_usd": tally.cost_usd, "why": trouble})
        )
        if ending is BatchEnd.DONE:
            claim.finish()
            return 0.0
        claim.forgive()
        claim.release()
        return 0.0 if ending is BatchEnd.STOPPED else plan.pause_s


def _free_of_charge(line: RequestLine) -> float:
    """A spool has no cap of its own: the host's budget holds for it."""
    del line
    return 0.0


def _plan_of(claim: Claim, plan: WorkerPlan, *, worst_usd: Callable[[RequestLine], float]) -> Plan:
    return Plan(
        source=claim.source,
        output=claim.output,
        errors=claim.errors,
        at_once=plan.at_once,
        max_line_bytes=plan.max_line_bytes,
        max_usd=None,
        worst_usd=worst_usd,
        retry_failed=False,
    )
