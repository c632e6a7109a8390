"""Batches that hosts share, for the status page and Prometheus: looked at in the background, never waited for."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ai_client.coordination.endpoint import EngineError
from ai_client.platform.clock import Clock
from ai_client.settings import ConfigError, Settings

if TYPE_CHECKING:
    from ai_client.coordination.batch_link import BatchLink

KEPT_S = 15.0


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """One that is not fetched to its end, in lines; `stage` as in `BatchState`."""

    name: str
    stage: str
    lines: int
    done: int
    failed: int
    fetched: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class SharedBatches:
    """What a batch host knows of all of them, some seconds old."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._looked_at_s: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._found: tuple[BatchProgress, ...] | None = None
        #: An id is never used again: what has ended is not asked about.
        self._ended: set[str] = set()

    def newest(self, settings: Settings) -> tuple[BatchProgress, ...] | None:
        """None on a host that is no batch host, or whose engine gave no answer; also until the first one came."""
        if settings.coordination.endpoint is None or not settings.batch.mode:
            return None
        now_s = self._clock.monotonic()
        is_old = self._looked_at_s is None or now_s - self._looked_at_s >= KEPT_S
        if is_old and (self._task is None or self._task.done()):
            self._looked_at_s = now_s
            self._task = asyncio.get_running_loop().create_task(self._look(settings))
        return self._found

    async def _look(self, settings: Settings) -> None:
        # Not all hosts have an engine, and its library takes long to load.
        shared = await asyncio.to_thread(importlib.import_module, "ai_client.configure.shared_batches")
        try:
            link = await asyncio.to_thread(shared.batch_link, settings)
        except ConfigError:
            self._found = None
            return
        try:
            self._found = await self._asked(link)
        except EngineError:
            # The quota's own calls tell what is the matter.
            self._found = None
        finally:
            await link.close()

    async def _asked(self, link: BatchLink) -> tuple[BatchProgress, ...]:
        ids = set((await link.index()).values())
        self._ended &= ids
        states = [
            state for batch in sorted(ids - self._ended) if (state := await link.look(batch)) is not None
        ]
        self._ended |= {state.batch for state in states if state.is_ended}
        going_on = sorted(
            (state for state in states if not state.is_ended), key=lambda each: each.opened_at_s
        )
        return tuple(
            BatchProgress(each.name, each.stage, each.lines, each.done, each.failed, each.fetched)
            for each in going_on
        )
