"""Takes the results of a batch out of the engine: each line once into the output, whenever this was interrupted.

A result is dropped from the engine after it was synced to disk. What is in the files is fetched, and nothing else:
after a kill between the two, results come again and are known by their line.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from ai_client.batch.lines import scan
from ai_client.batch.output import Done, LineFile, OutputError, check_apart, write_whole
from ai_client.batch.runner import Tally
from ai_client.batch.shared.engine import (
    BatchEngine,
    BatchError,
    Told,
    Wait,
    found,
    patiently,
    tend,
    to_nobody,
)
from ai_client.batch.shared.sealing import BatchSeal, HostKey, SealError
from ai_client.coordination.batch_protocol import BatchState, Fetch, Page

LOOK_EVERY_S = 1.0
_PAGE_LINES = 500
_PAGE_BYTES = 4_000_000
_OUTPUT = "output"
_T = TypeVar("_T")


def result_about(number: int) -> str:
    """What a result's seal is bound to."""
    return f"result of line {number}"


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """What to fetch. `waits`: until the batch is finished; `takes_over`: also from another output.

    `told` hears where the engine gives no answer.
    """

    name: str
    output: Path
    errors: Path
    host: str
    keys: Sequence[HostKey]
    waits: bool
    takes_over: bool
    told: Told = to_nobody


@dataclass(slots=True)
class _Memory:
    """Beside the output: which batch it is of. It outlives the batch, so that a later run knows that all is there."""

    batch: str
    token: str
    is_complete: bool = False

    @classmethod
    def read(cls, path: Path) -> _Memory | None:
        """What an earlier run left. Raises OutputError."""
        try:
            told = json.loads(path.read_text("utf-8"))
            return cls(str(told["batch"]), str(told["token"]), bool(told["complete"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as exc:
            remedy = "name another output, or remove both files"
            raise OutputError(f"{path} can't be read ({type(exc).__name__}); {remedy}") from exc

    def write(self, path: Path) -> None:
        told = {"batch": self.batch, "token": self.token, "complete": self.is_complete}
        write_whole(path, json.dumps(told))
        _sync_folder(path)


def _sync_folder(path: Path) -> None:
    """Makes a new file's name outlive a power cut: what is in it is dropped elsewhere."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Fetching:
    """One run; `tally` is what the output has come to, earlier runs included."""

    def __init__(self, plan: FetchPlan, engine: BatchEngine, *, wait: Wait = asyncio.sleep) -> None:
        self._plan = plan
        self._engine = engine
        self._wait = wait
        self._done = Done()
        self._is_new = False
        self._memory_path = plan.output.with_name(plan.output.name + ".batch")
        self.tally = Tally()
        self.state: BatchState | None = None
        self.is_complete = False

    async def run(self) -> None:
        """Raises BatchError, SealError, OutputError, EngineError, and OSError where an output can't be written."""
        plan = self._plan
        check_apart(plan.output, plan.errors, self._memory_path)
        with LineFile(plan.output) as output, LineFile(plan.errors) as errors:
            for file in (output, errors):
                _sync_folder(file.path)
                for answered in file.recover():
                    if self._done.add(answered.number):
                        self.tally.note(code=answered.code, cost_usd=answered.cost_usd)
            memory = _Memory.read(self._memory_path)
            if memory is None and self._done.count:
                remedy = "name another output, or move the file away"
                raise OutputError(f"{plan.output} has answers of something else than this batch; {remedy}")
            index = await self._call(self._engine.index)
            if memory is not None and memory.is_complete and index.get(plan.name) in (None, memory.batch):
                self.is_complete = True
                return
            self.state = await found(self._engine, plan.name, wait=self._wait, told=plan.told)
            seal = BatchSeal.from_keys(self.state.batch, self.state.keys, self._plan.keys)
            if self.state.is_ended and (memory is None or memory.batch != self.state.batch):
                where = self._where(seal, self.state.output)
                raise BatchError(f"all results of {plan.name!r} were fetched to {where}")
            await self._fetch(self._memory_of(self.state, memory), seal, output, errors)

    def _memory_of(self, state: BatchState, memory: _Memory | None) -> _Memory:
        if memory is None or (memory.batch != state.batch and not self._done.count):
            # An output without a line is anybody's: what it was to hold was discarded, or lost with its engine.
            memory = _Memory(state.batch, secrets.token_hex(8))
            memory.write(self._memory_path)
            self._is_new = True
        if memory.batch != state.batch:
            remedy = "name another output"
            raise OutputError(f"{self._plan.output} is of another batch than {state.name!r}; {remedy}")
        return memory

    async def _fetch(self, memory: _Memory, seal: BatchSeal, output: LineFile, errors: LineFile) -> None:
        state = self.state
        assert state is not None  # noqa: S101 - for the type checker
        if state.is_ended:
            # This output's own run ended it, and was killed before it knew.
            await self._complete(memory)
            return
        await self._call(lambda: tend(self._engine, state, self._plan.keys, now=self._plan.keys))
        where = seal.seal(f"{self._plan.host}:{self._plan.output.resolve()}".encode(), _OUTPUT)
        takes_over = self._plan.takes_over
        while True:
            self.state = await self._look(state.batch)
            page = await self._page(memory, where, takes_over=takes_over)
            takes_over = False
            if page.fetch is Fetch.OTHER:
                if self._is_new and not self._done.count:
                    self._memory_path.unlink(missing_ok=True)
                raise BatchError(self._told_elsewhere(seal, page))
            if page.results:
                self._write(seal, page, output, errors)
                lines = list(page.results)
                await self._call(partial(self._engine.drop, memory.batch, memory.token, lines))
            elif self.state.is_finished and await self._is_still_finished(state.batch):
                await self._complete(memory)
                return
            elif not self._plan.waits:
                return
            else:
                await self._wait(LOOK_EVERY_S)

    async def _is_still_finished(self, batch: str) -> bool:
        """Whether the empty page came from an engine that had all results, and none took over since."""
        self.state = await self._look(batch)
        return self.state.is_finished and self.state.results == 0

    async def _look(self, batch: str) -> BatchState:
        state = await self._call(lambda: self._engine.look(batch))
        if state is None:
            raise BatchError(f"the batch {self._plan.name!r} is gone: discarded, or lost with its engine")
        if state.is_ended:
            raise BatchError(f"all results of {self._plan.name!r} were fetched to another output")
        return state

    async def _page(self, memory: _Memory, where: bytes, *, takes_over: bool) -> Page:
        return await self._call(
            lambda: self._engine.page(
                memory.batch,
                where,
                memory.token,
                takes_over=takes_over,
                most=_PAGE_LINES,
                room_bytes=_PAGE_BYTES,
            )
        )

    @staticmethod
    def _where(seal: BatchSeal, output: bytes) -> str:
        try:
            return seal.unseal(output, _OUTPUT).decode()
        except SealError:
            return "another output"

    def _told_elsewhere(self, seal: BatchSeal, page: Page) -> str:
        where = self._where(seal, page.fetcher)
        remedy = "go on there, or take only the rest of them with --take-over"
        return f"results of {self._plan.name!r} are being fetched to {where}; {remedy}"

    def _write(self, seal: BatchSeal, page: Page, output: LineFile, errors: LineFile) -> None:
        """Appends what is not there yet, and syncs. Raises SealError, OSError."""
        for number, sealed in page.results.items():
            line = seal.unseal(sealed, result_about(number))
            answered = scan(line)
            if answered is None or answered.number != number:
                raise SealError(f"the result of line {number} is none; see the release of the batch hosts")
            if self._done.add(number):
                (errors if answered.code else output).append(line)
                self.tally.note(code=answered.code, cost_usd=answered.cost_usd)
        output.sync()
        errors.sync()

    async def _complete(self, memory: _Memory) -> None:
        memory.is_complete = True
        memory.write(self._memory_path)
        await self._call(lambda: self._engine.finish(memory.batch))
        self.is_complete = True

    async def _call(self, call: Callable[[], Awaitable[_T]]) -> _T:
        return await patiently(call, wait=self._wait, told=self._plan.told)
