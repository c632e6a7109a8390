"""An input in chunks: read from any chunk's beginning, with the numbers of its lines."""

from __future__ import annotations

import json
from pathlib import Path

from ai_client.batch.lines import BadLine, RequestLine
from ai_client.batch.shared.chunks import MOST_LINES, ReadChunk, lines_of, read_chunks

_MOST_BYTES = 200


def _line(number: int) -> bytes:
    return json.dumps({"custom_id": f"c{number}", "url": "/v1/embeddings", "body": {}}).encode()


def _read(path: Path, offset: int = 0, last: int = 0) -> list[ReadChunk]:
    return list(read_chunks(path, offset=offset, last=last, max_line_bytes=_MOST_BYTES))


def _numbers(chunks: list[ReadChunk]) -> list[int]:
    return [line.number for each in chunks for line in lines_of(each.packed, max_line_bytes=_MOST_BYTES)]


def test_every_line_is_in_one_chunk_and_any_chunk_is_a_beginning(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(_line(number) for number in range(1, 51)))
    chunks = _read(path)
    assert [each.count for each in chunks] == [MOST_LINES, MOST_LINES, MOST_LINES, 50 - 3 * MOST_LINES]
    assert _numbers(chunks) == list(range(1, 51))
    assert [each.offset for each in chunks[1:]] == [each.end for each in chunks[:-1]]
    assert chunks[-1].end == path.stat().st_size
    for at, chunk in enumerate(chunks):
        assert _read(path, chunk.offset, chunk.first - 1) == chunks[at:]


def test_blank_lines_count_and_are_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join([b"", _line(2), b"  ", _line(4), b"", b""]))
    (chunk,) = _read(path)
    assert (_numbers([chunk]), chunk.count, chunk.first) == ([2, 4], 2, 1)
    assert _read(path, chunk.end, chunk.last) == []


def test_a_line_that_is_too_long_is_told_by_its_number_and_the_next_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join([b"x" * (3 * _MOST_BYTES), _line(2)]))
    (chunk,) = _read(path)
    long, good = lines_of(chunk.packed, max_line_bytes=_MOST_BYTES)
    assert long == BadLine(1, None, "is longer than 200 bytes")
    assert isinstance(good, RequestLine)
    assert good.number == 2


def test_an_empty_input_has_no_chunk(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n\n")
    assert _read(path) == []
