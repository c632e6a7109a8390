"""An input is submitted as the one that its batch is known by, or not to its end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ai_client.batch.shared.sealing import HostKey
from ai_client.batch.shared.submission import ROOM_WAIT_S, Submission, SubmissionPlan
from ai_client.batch.source import InputError
from ai_client.coordination.batch_books import BatchBooks
from ai_client.coordination.batch_protocol import Addition, NewChunk
from ai_client.coordination.endpoint import EngineFullError
from tests.client.batch.shared.model_engine import ModelEngine

_LINES = 100


class _Meddling(BatchBooks):
    """Somebody changes the file after its first chunk was added."""

    source: Path
    how: str = ""

    @classmethod
    def of(cls, source: Path, how: str) -> _Meddling:
        source.write_bytes(b"".join(map(_line, range(_LINES))))
        books = cls()
        books.source, books.how = source, how
        return books

    def add(self, batch: str, new: NewChunk, *, room_bytes: int) -> Addition:
        how, self.how = self.how, ""
        if how == "grows":
            with self.source.open("ab") as file:
                file.write(_line(_LINES))
        elif how == "is replaced":
            other = self.source.with_name("other")
            other.write_bytes(self.source.read_bytes())
            other.replace(self.source)
        elif how == "is rewritten":
            found = self.source.stat()
            self.source.write_bytes(self.source.read_bytes()[::-1])
            os.utime(self.source, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
        elif how == "goes away":
            self.source.unlink()
        return super().add(batch, new, room_bytes=room_bytes)


def _line(number: int) -> bytes:
    return json.dumps({"custom_id": f"c{number}", "url": "/v1/embeddings", "body": {}}).encode() + b"\n"


async def _submitted(source: Path, how: str) -> _Meddling:
    books = _Meddling.of(source, how)
    plan = SubmissionPlan(source, "n", "h", (HostKey.of("hs_test_key_1"),), max_line_bytes=1000, now_s=0)
    await Submission(plan, ModelEngine(books)).run()
    return books


async def test_an_input_is_submitted_whole(tmp_path: Path) -> None:
    books = await _submitted(tmp_path / "in.jsonl", "")
    (batch,) = books.batches.values()
    assert batch.state.is_closed
    assert batch.state.lines == _LINES


class _Full(BatchBooks):
    """Has no memory for a chunk at first."""

    refusals = 1000

    def add(self, batch: str, new: NewChunk, *, room_bytes: int) -> Addition:
        if self.refusals:
            self.refusals -= 1
            raise EngineFullError("out of memory")
        return super().add(batch, new, room_bytes=room_bytes)


async def test_an_engine_without_memory_is_waited_for_as_one_without_room_is(tmp_path: Path) -> None:
    """For as long as it takes: who fetches makes room, and what was submitted is not lost meanwhile."""
    source, books, waited_s = tmp_path / "in.jsonl", _Full(), 0.0

    async def wait(seconds: float) -> None:
        nonlocal waited_s
        assert submission.is_waiting
        waited_s += seconds

    _Meddling.of(source, "")
    plan = SubmissionPlan(source, "n", "h", (HostKey.of("hs_test_key_1"),), max_line_bytes=1000, now_s=0)
    submission = Submission(plan, ModelEngine(books), wait=wait)
    assert (await submission.run()).lines == _LINES
    assert waited_s == _Full.refusals * ROOM_WAIT_S
    assert not submission.is_waiting


@pytest.mark.parametrize("how", ["grows", "is replaced", "is rewritten", "goes away"])
async def test_an_input_that_changes_meanwhile_is_told_and_never_closed(tmp_path: Path, how: str) -> None:
    """What is sealed as the input's identity would be another's: neither of the two could be submitted again."""
    words = "can't be read" if how == "goes away" else r"changed while it was submitted; .*cancel n --discard"
    with pytest.raises(InputError, match=words):
        await _submitted(tmp_path / "in.jsonl", how)
