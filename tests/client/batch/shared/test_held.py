"""A chunk that is held: lines are begun while it is surely this host's."""

from __future__ import annotations

from ai_client.batch.lines import BadLine
from ai_client.batch.shared.held import HeldChunk
from ai_client.batch.shared.sealing import BatchSeal
from ai_client.coordination.batch_protocol import BatchTerms, Chunk, Hold

_TERMS = BatchTerms()


def _held(lines: int = 2) -> HeldChunk:
    chunk = Chunk("0-1", "b", 1, 1, lines, lines)
    todo = [BadLine(number, None, "") for number in range(1, lines + 1)]
    return HeldChunk.of(chunk, BatchSeal("b", b""), todo, terms=_TERMS, asked_at_ms=1_000)


def test_no_line_is_begun_after_half_of_the_idle_time() -> None:
    """Counted from before the call: another host is given the chunk after all of it."""
    held = _held()
    assert held.may_begin(1_000 + _TERMS.idle_ms // 2 - 1)
    assert held.begin(1_000 + _TERMS.idle_ms // 2) is None
    held.renewed(Hold.HELD, asked_at_ms=40_000)
    assert held.begin(40_001) is not None


def test_an_answer_that_was_late_takes_no_time_back() -> None:
    held = _held()
    held.renewed(Hold.HELD, asked_at_ms=20_000)
    held.renewed(Hold.HELD, asked_at_ms=5_000)
    assert held.may_begin(20_000 + _TERMS.hold_ms - 1)


def test_a_chunk_that_was_lost_stays_lost() -> None:
    """Whatever an older answer says."""
    held = _held()
    held.renewed(Hold.LOST, asked_at_ms=2_000)
    held.renewed(Hold.HELD, asked_at_ms=1_500)
    assert held.begin(2_001) is None
    assert held.is_over


def test_it_is_over_when_what_is_under_way_has_ended() -> None:
    held = _held(lines=1)
    held.begin(1_001)
    assert not held.is_over
    held.ended()
    assert held.is_over


def test_what_is_given_up_begins_nothing_and_waits_for_what_is_under_way() -> None:
    held = _held()
    held.begin(1_001)
    held.give_up()
    assert held.begin(1_002) is None
    assert not held.is_over
    held.ended()
    assert held.is_over
    assert len(held.todo) == 1
