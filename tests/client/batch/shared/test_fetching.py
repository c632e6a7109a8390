"""Results of a shared batch go to one output, each once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ai_client.batch import lines
from ai_client.batch.lines import RequestLine
from ai_client.batch.output import OutputError
from ai_client.batch.shared.engine import BatchError
from ai_client.batch.shared.fetching import Fetching, FetchPlan, result_about
from ai_client.batch.shared.sealing import BatchSeal, HostKey, SealError
from ai_client.coordination.batch_protocol import NewBatch, NewChunk
from tests.client.batch.shared.model_engine import ModelEngine

_KEYS = (HostKey.of("hs_test_key_1"),)
_LINES = 4


class _Batch:
    """A batch of one chunk, of which some lines are answered."""

    def __init__(self, batch: str = "id") -> None:
        self.engine = ModelEngine()
        self.seal = BatchSeal.new(batch)
        books = self.engine.books
        books.open(NewBatch("n", batch, 0, "h", self.seal.seal(b"", "input"), self.seal.for_keys(_KEYS)))
        books.add(batch, NewChunk(0, 9, 1, _LINES, _LINES, b"sealed"), room_bytes=100)
        books.close(batch, 9)
        chunk = books.take("h/1", idle_ms=1, now_ms=0)
        assert chunk is not None
        self.chunk = chunk

    def answer(self, *numbers: int) -> None:
        for number in numbers:
            line = RequestLine(number, f"c{number}", "/v1/embeddings", {})
            text = lines.success(line, status=200, request_id="r", body=b"{}", cost_usd=0.5)
            sealed = self.seal.seal(text, result_about(number))
            self.engine.books.answer(self.chunk, number, sealed, failed=False)

    async def fetch(self, output: Path, *, takes_over: bool = False) -> Fetching:
        errors = output.with_name(output.name + ".errors")
        plan = FetchPlan("n", output, errors, "h", _KEYS, waits=False, takes_over=takes_over)
        fetching = Fetching(plan, self.engine)
        await fetching.run()
        return fetching


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _numbers(output: Path) -> list[int]:
    told = (lines.scan(line) for line in output.read_bytes().splitlines(keepends=True))
    return sorted(each.number for each in told if each is not None)


async def test_a_batch_is_fetched_in_parts_and_then_known_to_be_whole(tmp_path: Path) -> None:
    batch, output = _Batch(), tmp_path / "out.jsonl"
    batch.answer(1, 2)
    assert not (await batch.fetch(output)).is_complete
    batch.answer(3, 4)
    whole = await batch.fetch(output)
    assert whole.is_complete
    assert (whole.tally.answered, whole.tally.cost_usd) == (_LINES, 2.0)
    assert _numbers(output) == [1, 2, 3, 4]
    assert (await batch.fetch(output)).is_complete


async def test_a_result_that_was_written_and_not_dropped_is_not_written_again(tmp_path: Path) -> None:
    """As after a kill between the two."""
    batch, output = _Batch(), tmp_path / "out.jsonl"
    batch.answer(1, 2, 3, 4)
    before = batch.engine.books.copy()
    await batch.fetch(output)
    batch.engine.books = before
    assert (await batch.fetch(output)).is_complete
    assert _numbers(output) == [1, 2, 3, 4]


async def test_a_second_output_has_nothing_unless_it_takes_over(tmp_path: Path) -> None:
    """It is told where the others are; then it has the rest alone, and the first one no more."""
    batch, first, second = _Batch(), tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    batch.answer(1, 2)
    await batch.fetch(first)
    batch.answer(3)
    with pytest.raises(BatchError, match=f"being fetched to h:{first}"):
        await batch.fetch(second)
    await batch.fetch(second, takes_over=True)
    batch.answer(4)
    with pytest.raises(BatchError, match=f"being fetched to h:{second}"):
        await batch.fetch(first)
    assert (await batch.fetch(second)).is_complete
    assert (_numbers(first), _numbers(second)) == ([1, 2], [3, 4])
    with pytest.raises(BatchError, match="results of 'n' were fetched to"):
        await batch.fetch(tmp_path / "third.jsonl")


async def test_an_output_of_another_batch_is_refused(tmp_path: Path) -> None:
    """Its lines would be taken for this batch's."""
    output = tmp_path / "out.jsonl"
    first, other = _Batch(), _Batch("another")
    first.answer(1)
    await first.fetch(output)
    with pytest.raises(OutputError, match="is of another batch than 'n'"):
        await other.fetch(output)
    (tmp_path / "out.jsonl.batch").unlink()
    with pytest.raises(OutputError, match="something else than this batch"):
        await first.fetch(output)


async def test_a_result_that_the_engine_put_in_anothers_place_is_refused(tmp_path: Path) -> None:
    batch, output = _Batch(), tmp_path / "out.jsonl"
    batch.answer(1, 2)
    results = batch.engine.books.batches["id"].results
    results[1], results[2] = results[2], results[1]
    with pytest.raises(SealError, match="was changed"):
        await batch.fetch(output)
    assert not output.exists()


async def test_a_fetch_that_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    """No empty file that looks like a result, and no memory of a batch that the output has nothing of."""
    batch, first, second = _Batch(), tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    batch.answer(1)
    await batch.fetch(first)
    before = _names(tmp_path)
    with pytest.raises(BatchError, match="are being fetched"):
        await batch.fetch(second)
    batch.engine.books.names.clear()
    with pytest.raises(BatchError, match="there is no batch"):
        await batch.fetch(tmp_path / "third.jsonl")
    assert _names(tmp_path) == before


async def test_an_output_without_a_line_serves_the_next_batch(tmp_path: Path) -> None:
    """What it was for was discarded before anything was fetched."""
    output, discarded, next_one = tmp_path / "out.jsonl", _Batch(), _Batch("another")
    assert not (await discarded.fetch(output)).is_complete
    next_one.answer(1, 2, 3, 4)
    assert (await next_one.fetch(output)).is_complete
    assert _numbers(output) == [1, 2, 3, 4]


@pytest.mark.parametrize("output", ["/dev/null", "/dev/full"])
async def test_results_are_not_given_away_to_what_keeps_none(output: str) -> None:
    """They would be dropped from the engine."""
    batch = _Batch()
    batch.answer(1)
    with pytest.raises(OutputError, match="is not a regular file"):
        await batch.fetch(Path(output))
    assert batch.engine.books.batches["id"].results
    assert not {Path(output).name + ".batch", Path(output).name + ".errors"} & set(_names(Path("/dev")))
