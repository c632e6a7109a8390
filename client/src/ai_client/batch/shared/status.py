"""How a shared batch stands, for people and programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ai_client.batch.shared.engine import BatchEngine, patiently
from ai_client.coordination.batch_protocol import BatchTerms


@dataclass(frozen=True, slots=True)
class BatchView:
    """`lines`: as many as are submitted. `in_flight`: held by `hosts` and not answered.

    `unasked_s`: for so long its lines wait and no host has taken any (`InFlight`).
    """

    name: str
    stage: str
    lines: int
    done: int
    failed: int
    in_flight: int
    fetched: int
    size_bytes: int
    submitted_from: str
    hosts: tuple[str, ...]
    unasked_s: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def unasked(name: str, seconds: int) -> str:
    """That nobody takes a batch's lines, and what to do; "" where somebody does."""
    if not seconds:
        return ""
    return (
        f"{name}: no host has taken any of its lines for {seconds} s; set `mode = true` of [batch] on at least one "
        "host of this account, or see `shared_batch_waits` in the logs of those that have it"
    )


async def view(engine: BatchEngine, batch: str) -> BatchView | None:
    """One batch; None where it is gone. Raises EngineError."""
    state = await patiently(lambda: engine.look(batch), absence_s=0)
    if state is None:
        return None
    flight = await patiently(lambda: engine.flight(batch, idle_ms=BatchTerms().idle_ms), absence_s=0)
    return BatchView(
        name=state.name,
        stage=state.stage,
        lines=state.lines,
        done=state.done,
        failed=state.failed,
        in_flight=flight.lines,
        fetched=state.fetched,
        size_bytes=state.size_bytes,
        submitted_from=state.host,
        hosts=flight.hosts,
        unasked_s=flight.unasked_ms // 1000,
    )
