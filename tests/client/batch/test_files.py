"""The files of a batch: its lines, its output that is its own journal, its input in constant memory."""

from __future__ import annotations

import errno
import json
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_client.batch import lines, progress
from ai_client.batch.lines import Answered, BadLine, RequestLine
from ai_client.batch.output import Done, LineFile, OutputError, check_apart, write_whole
from ai_client.batch.shared.chunks import Identity, read_chunks
from ai_client.batch.source import InputError, InputIdentity, Source, check_same

REQUEST = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"input": "x"}}
LINE = RequestLine(7, "a", "/v1/embeddings", {"input": "x"})


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not a JSON object"),
        (json.dumps(REQUEST | {"custom_id": 3}).encode(), "has no custom_id"),
        (json.dumps(REQUEST | {"method": "GET"}).encode(), "has a method other than POST"),
        (json.dumps(REQUEST | {"url": "/v1/files"}).encode(), "has a url that is none of"),
        (json.dumps(REQUEST | {"body": "x"}).encode(), "has no body"),
        (json.dumps(REQUEST | {"body": {"stream": True}}).encode(), "asks for a stream"),
    ],
)
def test_a_bad_line_says_what_is_wrong_with_it(raw: bytes, reason: str) -> None:
    """Kept out of the requests, with its number."""
    bad = lines.parse(3, raw)
    assert isinstance(bad, BadLine)
    assert bad.reason.startswith(reason)
    assert f"line 3 {reason}" in json.loads(lines.rejection(bad))["error"]["message"]


def test_an_answer_is_a_line_of_openais_format() -> None:
    """With the body as it came."""
    body = b'{"object": "list",\r\n "data": []}'
    raw = lines.success(LINE, status=200, request_id="req", body=body, cost_usd=0.5)
    assert raw.count(b"\n") == 1
    value = json.loads(raw)
    assert value["id"] == "batch_req_7"
    assert value["custom_id"] == "a"
    assert value["response"] == {
        "status_code": 200,
        "request_id": "req",
        "body": {"object": "list", "data": []},
    }
    assert value["error"] is None
    assert lines.scan(raw) == Answered(7, 0.5, "")


def test_a_failure_keeps_what_was_answered() -> None:
    """Also where that is no JSON."""
    raw = lines.failure(LINE, status=502, code="upstream_error", message="no", body=b"<html>")
    assert json.loads(raw)["response"]["body"] == "<html>"
    assert lines.scan(raw) == Answered(7, 0.0, "upstream_error")


@given(st.text(), st.text(), st.floats(min_value=0, max_value=1000))
def test_every_line_that_is_written_can_be_scanned(custom_id: str, code: str, cost_usd: float) -> None:
    """Whatever callers put into their ids, and upstreams into their codes."""
    line = RequestLine(1, custom_id, "/v1/embeddings", {})
    for raw in (
        lines.success(line, status=200, request_id=code, body=b"{}", cost_usd=cost_usd),
        lines.failure(line, status=500, code=code, message=custom_id, body=None),
    ):
        assert raw.endswith(b"}\n")
        assert raw.count(b"\n") == 1
        assert json.loads(raw)["custom_id"] == custom_id
        assert lines.scan(raw) is not None


def test_a_torn_end_is_cut_off(tmp_path: Path) -> None:
    """What a kill leaves of a line is not an answer."""
    path = tmp_path / "out"
    whole = lines.success(LINE, status=200, request_id="", body=b"{}", cost_usd=0.0)
    path.write_bytes(whole + whole[:-5])
    with LineFile(path) as file:
        assert [answered.number for answered in file.recover()] == [7]
    assert path.read_bytes() == whole


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """An output named by mistake is not appended to."""
    path = tmp_path / "precious"
    path.write_text("dear diary\n")
    with LineFile(path) as file, pytest.raises(OutputError, match="not a batch's answers"):
        list(file.recover())
    assert path.read_text() == "dear diary\n"


def test_two_runs_can_not_write_one_output(tmp_path: Path) -> None:
    """The second one is told so."""
    with LineFile(tmp_path / "out"), pytest.raises(OutputError, match="being written by another run"):
        LineFile(tmp_path / "out").__enter__()


def _odd(folder: Path, kind: str) -> Path:
    """What can be named in place of a file."""
    path = folder / "odd"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    else:
        return Path(kind)
    return path


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to a device", "/dev/zero"])
def test_an_input_that_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    """It would be waited for, or read, for ever."""
    path = _odd(tmp_path, kind)
    for read in (
        InputIdentity.of,
        Identity.of,
        lambda each: list(read_chunks(each, offset=0, last=0, max_line_bytes=100)),
    ):
        with pytest.raises(InputError, match="is not a regular file"):
            read(path)


@pytest.mark.parametrize("kind", ["pipe", "link to a device", "/dev/null", "/dev/full"])
def test_an_output_that_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    """It could not be read again to know what is done."""
    with pytest.raises(OutputError, match="is not a regular file"), LineFile(_odd(tmp_path, kind)):
        pass


def test_a_run_that_is_refused_leaves_no_empty_file(tmp_path: Path) -> None:
    """Of those that it made; others stay, and what has lines stays."""

    def refuse(name: str, line: bytes) -> None:
        with LineFile(tmp_path / name) as file:
            file.append(line)
            raise InputError("refused")

    (tmp_path / "before").touch()
    for name, line in (("before", b""), ("made", b""), ("written", b"x\n")):
        with pytest.raises(InputError):
            refuse(name, line)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before", "written"]


def test_one_file_is_not_written_for_two_purposes(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("out")
    check_apart(tmp_path / "out", tmp_path / "errors")
    with pytest.raises(OutputError, match="for two purposes"):
        check_apart(tmp_path / "out", tmp_path / "errors", tmp_path / "link")


def test_a_small_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the error names it: a full disk says so as late as at the sync."""
    path = tmp_path / "small"
    write_whole(path, "before")

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(path, "after")
    assert caught.value.filename == str(path)
    assert [each.name for each in tmp_path.iterdir()] == ["small"]
    assert path.read_text() == "before"
    assert path.stat().st_mode & 0o007 == 0


def test_a_memory_of_the_input_that_is_torn_is_told(tmp_path: Path) -> None:
    source, memory = tmp_path / "in", tmp_path / "out.input"
    source.touch()
    for text in ("", "[]", '{"size": 1}'):
        memory.write_text(text)
        with pytest.raises(InputError, match=r"out\.input can't be read"):
            check_same(source, memory)


def test_only_what_can_never_succeed_stays_of_the_failures(tmp_path: Path) -> None:
    """The others are tried again."""
    path = tmp_path / "errors"
    bad = lines.rejection(BadLine(1, None, "is not JSON"))
    path.write_bytes(bad + lines.failure(LINE, status=502, code="x", message="", body=None))
    with LineFile(path) as file:
        file.drop_failures()
        file.append(bad)
    assert path.read_bytes() == bad + bad


def test_done_lines_take_a_bit_each() -> None:
    """Ten million lines fit into some megabytes."""
    tracemalloc.start()
    done = Done()
    for number in range(0, 10_000_000, 997):
        assert done.add(number)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not done.add(997)
    assert 998 not in done
    assert peak_bytes < 8_000_000


def test_a_long_input_is_read_in_constant_memory(tmp_path: Path) -> None:
    """Line by line, done lines not even parsed."""
    path = tmp_path / "in"
    raw = json.dumps(REQUEST | {"body": {"input": "x" * 2000}}).encode() + b"\n"
    with path.open("wb") as file:
        for _ in range(10_000):
            file.write(raw)
    tracemalloc.start()
    count = sum(1 for _ in Source(path, done=Done(), max_line_bytes=10_000))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 10_000
    assert peak_bytes < 1_000_000


def test_done_lines_blank_lines_and_endless_lines_are_passed_over(tmp_path: Path) -> None:
    """Each keeps its number; an endless line is a bad one."""
    path = tmp_path / "in"
    good = json.dumps(REQUEST).encode()
    path.write_bytes(b"\n".join([good, b"", good, b"x" * 5000, good]))
    done = Done()
    done.add(3)
    found = list(Source(path, done=done, max_line_bytes=1000))
    assert [(type(line), line.number) for line in found] == [(RequestLine, 1), (BadLine, 4), (RequestLine, 5)]


def test_an_input_may_grow_but_not_change(tmp_path: Path) -> None:
    """Line numbers name lines: another input would get answers to the wrong requests."""
    source, memory = tmp_path / "in", tmp_path / "memory"
    source.write_bytes(b"one\n")
    check_same(source, memory)
    source.write_bytes(b"one\ntwo\n")
    check_same(source, memory)
    source.write_bytes(b"onE\ntwo\n")
    with pytest.raises(InputError, match="is not the input that this output was started with"):
        check_same(source, memory)
    with pytest.raises(InputError, match="can't be read"):
        check_same(tmp_path / "none", tmp_path / "memory 2")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (59, "59s"), (130, "2m10s"), (11_100, "3h05m")])
def test_the_time_left_is_written_shortly(seconds: float, text: str) -> None:
    """As people say it."""
    assert progress.duration(seconds) == text
